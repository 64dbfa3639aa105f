"""Every message that nodes exchange, as frozen values.

Why one file: it is the protocol. `docs/protocol.md` lists it, and a test compares the two.

Rules:
- Every field has a number (`Tag`), which never changes its meaning and is never used again.
  A reader ignores numbers it does not know; a field that came later has a default.
- Every text, list and number has a bound, given beside its number and checked by the codec in
  both directions.
- A message class has a `KIND`, its number on the wire; a class without one is only part of others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from meshslm import limits
from meshslm.ids import NodeId, TaskId
from meshslm.wire.admission import AdmissionMessage, Credential
from meshslm.wire.consensus import ConsensusMessage
from meshslm.wire.detection import DetectionMessage
from meshslm.wire.draining import DrainMessage
from meshslm.wire.growth import GrowthMessage
from meshslm.wire.reach import ReachMessage
from meshslm.wire.routing import ROUTED_ANYHOW, Routing
from meshslm.wire.schema import Tag
from meshslm.wire.shares import Shares
from meshslm.wire.state import StateMessage
from meshslm.wire.whereabouts import WhereaboutsMessage

ADDRESS_BYTES = 256
ID_BYTES = 128
DETAIL_BYTES = 1024
COUNT = 2**53
BOOTS = 2**48
RATE = 1e9
ATTEMPTS = 2**16

Name = limits.NAME_BYTES


# --- parts --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class DomainCard:
    """What a domain is about: a sentence and examples of requests, from which it is recognised."""

    domain: Annotated[str, Tag(1, most=Name)]
    sentence: Annotated[str, Tag(2, most=limits.CARD_TEXT_BYTES)] = ""
    examples: Annotated[
        tuple[str, ...], Tag(3, most=limits.CARD_TEXT_BYTES, items=limits.EXAMPLES_PER_CARD)
    ] = ()


@dataclass(frozen=True, slots=True)
class Specialist:
    """One profile on one node: a base model with a system prompt and domains."""

    profile: Annotated[str, Tag(1, most=Name)]
    model: Annotated[str, Tag(2, most=Name)]
    digest: Annotated[str, Tag(3, most=Name)]
    quantisation: Annotated[str, Tag(4, most=32)]
    context: Annotated[int, Tag(5, most=COUNT)]
    slots: Annotated[int, Tag(6, most=4096)]
    domains: Annotated[tuple[DomainCard, ...], Tag(7, items=limits.DOMAINS_PER_SPECIALIST)] = ()
    price: Annotated[float, Tag(8, most=RATE)] = 0.0
    """Price of a million tokens, in whatever unit the mesh agrees on."""
    batch_invariant: Annotated[bool, Tag(9)] = False
    """The file's kernels give the same tokens in a batch as alone."""
    operations: Annotated[tuple[str, ...], Tag(10, most=16, items=8)] = ("generate",)
    """What it can be asked for; see `TaskRequest.operation`."""
    adapters: Annotated[tuple[str, ...], Tag(11, most=Name, items=limits.ADAPTERS_ANNOUNCED)] = ()
    """LoRA adapters of its model that are on this node's disk."""
    size_mib: Annotated[int, Tag(12, most=COUNT)] = 0
    """Of its model's weights, by which models are compared; 0 where nobody knows."""
    private: Annotated[bool, Tag(13)] = False
    """What is asked of its domains does not leave the mesh."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a node runs on."""

    cores: Annotated[int, Tag(1, most=65536)] = 0
    memory_mib: Annotated[int, Tag(2, most=COUNT)] = 0
    features: Annotated[tuple[str, ...], Tag(3, most=32, items=32)] = ()
    accelerator: Annotated[str, Tag(4, most=Name)] = ""
    on_battery: Annotated[bool, Tag(5)] = False
    battery: Annotated[float, Tag(6, most=1.0)] = 1.0
    """How full it is."""
    temperature_c: Annotated[float, Tag(7, most=1000.0)] = 0.0
    """Of the processor; 0 where the system does not tell."""
    metered: Annotated[bool, Tag(8)] = False
    """Its link is paid for by volume."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy one engine is now; engines are named by base model."""

    model: Annotated[str, Tag(1, most=Name)]
    ready: Annotated[bool, Tag(2)]
    running: Annotated[int, Tag(3, most=COUNT)] = 0
    queued: Annotated[int, Tag(4, most=COUNT)] = 0
    free_slots: Annotated[int, Tag(5, most=COUNT)] = 0
    prefill_tps: Annotated[float, Tag(6, most=RATE)] = 0.0
    """Prompt tokens a second, measured; 0 while nothing was measured."""
    decode_tps: Annotated[float, Tag(7, most=RATE)] = 0.0
    """Tokens a second of one stream at the present batch, measured."""
    prefixes: Annotated[bytes, Tag(8, most=limits.PREFIX_DIGEST_BYTES)] = b""
    """Marks of conversations whose beginnings need not be computed again, 4 bytes each."""
    run_ms: Annotated[float, Tag(9, most=RATE)] = 0.0
    """How long its runs take of late, on average; 0 while none has ended."""
    load_ms: Annotated[float, Tag(10, most=RATE)] = 0.0
    """How long its last load took; 0 while there was none."""
    wait_ms: Annotated[float, Tag(11, most=RATE)] = 0.0
    """How long a run that comes now would wait for a slot, about."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer was heard to listen."""

    peer: Annotated[NodeId, Tag(1, most=ID_BYTES)]
    addresses: Annotated[
        tuple[str, ...], Tag(2, most=ADDRESS_BYTES, items=limits.ADDRESSES_PER_PEER)
    ]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asked for in an earlier turn."""

    id: Annotated[str, Tag(1, most=Name)]
    name: Annotated[str, Tag(2, most=limits.TOOL_NAME_BYTES)]
    arguments: Annotated[str, Tag(3, most=limits.PROMPT_BYTES)]
    """JSON text."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation."""

    role: Annotated[str, Tag(1, most=32)]
    content: Annotated[str, Tag(2, most=limits.PROMPT_BYTES)]
    name: Annotated[str, Tag(3, most=Name)] = ""
    calls: Annotated[tuple[ToolCall, ...], Tag(4, items=limits.TOOL_CALLS)] = ()
    """Of an assistant's turn."""
    call_id: Annotated[str, Tag(5, most=Name)] = ""
    """Of a tool's turn: the call that it answers."""
    reasoning: Annotated[str, Tag(6, most=limits.PROMPT_BYTES)] = ""
    """What the assistant thought before it answered."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask to be called."""

    name: Annotated[str, Tag(1, most=limits.TOOL_NAME_BYTES)]
    description: Annotated[str, Tag(2, most=limits.SCHEMA_BYTES)] = ""
    parameters: Annotated[str, Tag(3, most=limits.SCHEMA_BYTES)] = ""
    """JSON schema of its arguments; empty: an object of any kind."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """What form the answer must have."""

    kind: Annotated[str, Tag(1, most=16)]
    """`json_object`, `json_schema` or `gbnf`."""
    text: Annotated[str, Tag(2, most=limits.SCHEMA_BYTES)] = ""
    """The schema or the grammar."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. `None` leaves it to the specialist's profile."""

    temperature: Annotated[float | None, Tag(1, most=100.0)] = None
    top_p: Annotated[float | None, Tag(2, most=1.0)] = None
    top_k: Annotated[int | None, Tag(3, most=COUNT)] = None
    min_p: Annotated[float | None, Tag(4, most=1.0)] = None
    repeat_penalty: Annotated[float | None, Tag(5, most=100.0)] = None
    frequency_penalty: Annotated[float | None, Tag(6, least=-2.0, most=2.0)] = None
    presence_penalty: Annotated[float | None, Tag(7, least=-2.0, most=2.0)] = None
    seed: Annotated[int | None, Tag(8, least=-(2**63), most=2**63 - 1)] = None
    logit_bias: Annotated[tuple[TokenBias, ...], Tag(9, items=limits.LOGIT_BIASES)] = ()


@dataclass(frozen=True, slots=True)
class TokenBias:
    """Added to one token's logit before sampling."""

    token: Annotated[int, Tag(1, most=2**31)]
    bias: Annotated[float, Tag(2, least=-100.0, most=100.0)]


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """What a client asked for. Either `messages` (chat) or `prompt` (completion) is given."""

    selector: Annotated[str, Tag(1, most=2 * Name)]
    """`auto`, `domain:NAME`, a model's or profile's name, each optionally with `@node`."""
    messages: Annotated[tuple[ChatMessage, ...], Tag(2, items=limits.MESSAGES_PER_REQUEST)] = ()
    prompt: Annotated[str, Tag(3, most=limits.PROMPT_BYTES)] = ""
    max_tokens: Annotated[int, Tag(4, most=limits.MAX_TOKENS)] = 0
    """0: as many as the context has room for."""
    stop: Annotated[tuple[str, ...], Tag(5, most=limits.STOP_BYTES, items=limits.STOPS)] = ()
    choices: Annotated[int, Tag(6, least=1, most=limits.CHOICES)] = 1
    sampling: Annotated[Sampling, Tag(7)] = Sampling()
    logprobs: Annotated[int | None, Tag(8, most=limits.TOP_LOGPROBS)] = None
    """None: none; 0: of the chosen token; k: of the k likeliest too."""
    deadline_ms: Annotated[int, Tag(9, least=1, most=limits.DEADLINE_MS)] = limits.DEADLINE_MS
    operation: Annotated[str, Tag(10, most=16)] = "generate"
    """`generate`, `embed`, `rerank`, `tokenize`, `detokenize` or `template`."""
    inputs: Annotated[tuple[str, ...], Tag(11, most=limits.PROMPT_BYTES, items=limits.INPUTS)] = ()
    """Texts to embed, to score against `prompt`, or to tokenize."""
    priority: Annotated[str, Tag(12, most=16)] = "interactive"
    """`interactive` or `background`, which gives way."""
    tenant: Annotated[str, Tag(13, most=Name)] = ""
    """On whose behalf: tenants share an engine fairly."""
    constraint: Annotated[Constraint | None, Tag(14)] = None
    tools: Annotated[tuple[Tool, ...], Tag(15, items=limits.TOOLS)] = ()
    tool_choice: Annotated[str, Tag(16, most=limits.TOOL_NAME_BYTES)] = "auto"
    """`auto`, `none`, `required`, or the name of the tool to call."""
    parallel_calls: Annotated[bool, Tag(17)] = True
    thinking: Annotated[bool | None, Tag(18)] = None
    """Whether a model that can think does so; None: as its template has it."""
    thinking_tokens: Annotated[int | None, Tag(19, most=limits.MAX_TOKENS)] = None
    """Tokens to think at most; None: as many as the answer may have."""
    reasoning_effort: Annotated[str, Tag(20, most=16)] = ""
    """For templates that know one: `low`, `medium` or `high`."""
    adapter: Annotated[str, Tag(21, most=Name)] = ""
    """LoRA adapter to answer with; empty: the profile's, if it has one."""
    echo: Annotated[bool, Tag(22)] = False
    """Put the prompt before the answer; with logprobs, its tokens' too."""
    given: Annotated[tuple[int, ...], Tag(23, most=2**31, items=1024)] = ()
    """Tokens, for `detokenize`, or to embed in the place of a text."""
    packed: Annotated[bytes, Tag(26, most=4 * limits.PACKED_TOKENS)] = b""
    """The same where `given` has no room for them: 32 bits each, little-endian."""
    delivered: Annotated[bytes, Tag(24, most=4 * limits.DELIVERED_TOKENS)] = b""
    """Tokens of the answer that the client has already, 32 bits each, little-endian: the answer
    goes on behind them, and usage counts them."""
    begun: Annotated[str, Tag(25, most=limits.PROMPT_BYTES)] = ""
    """The same as text, where the tokens are another model's."""
    routing: Annotated[Routing, Tag(27)] = ROUTED_ANYHOW
    shares: Annotated[Shares | None, Tag(28)] = None
    """Which of several choices has what of these; None where there is one."""


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """One of the likeliest tokens at a position."""

    text: Annotated[str, Tag(1, most=1024)]
    raw: Annotated[bytes, Tag(2, most=1024)]
    logprob: Annotated[float, Tag(3, least=-1e9, most=0.0)]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The chosen token at a position, with the likeliest beside it."""

    text: Annotated[str, Tag(1, most=1024)]
    raw: Annotated[bytes, Tag(2, most=1024)]
    logprob: Annotated[float, Tag(3, least=-1e9, most=0.0)]
    top: Annotated[tuple[TopLogprob, ...], Tag(4, items=limits.TOP_LOGPROBS)] = ()


@dataclass(frozen=True, slots=True)
class CallPiece:
    """New text of one tool call. The first piece of a call has its id and name."""

    index: Annotated[int, Tag(1, most=limits.TOOL_CALLS)]
    id: Annotated[str, Tag(2, most=Name)] = ""
    name: Annotated[str, Tag(3, most=limits.TOOL_NAME_BYTES)] = ""
    arguments: Annotated[str, Tag(4, most=limits.MIB)] = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Newly generated tokens of one choice, and the text they released.

    Text lags behind tokens while a character or a possible stop string is incomplete.
    """

    choice: Annotated[int, Tag(1, most=limits.CHOICES)]
    tokens: Annotated[tuple[int, ...], Tag(2, most=2**31, items=1024)] = ()
    text: Annotated[str, Tag(3, most=limits.MIB)] = ""
    logprobs: Annotated[tuple[TokenLogprob, ...], Tag(4, items=1024)] = ()
    finish: Annotated[str, Tag(5, most=32)] = ""
    """`stop`, `length` or `tool_calls` in the last chunk of the choice, else empty."""
    reasoning: Annotated[str, Tag(6, most=limits.MIB)] = ""
    """Released text that is thinking, not answer."""
    calls: Annotated[tuple[CallPiece, ...], Tag(7, items=limits.TOOL_CALLS)] = ()
    item: Annotated[int, Tag(8, most=limits.INPUTS)] = 0
    """Which of the inputs a vector, score or token list belongs to."""
    vector: Annotated[bytes, Tag(9, most=limits.VECTOR_BYTES)] = b""
    """An embedding: 32-bit floats, little-endian."""
    score: Annotated[float, Tag(10, least=-RATE, most=RATE)] = 0.0
    """How relevant an input is to the query; larger is more."""
    queue_ms: Annotated[float, Tag(11, most=RATE)] = 0.0
    """In the first chunk of a run: how long it had waited before it began."""
    stopped: Annotated[str, Tag(12, most=limits.STOP_BYTES)] = ""
    """Beside the finish `stop`: the stop string that was met, if one was."""
    prompt_tokens: Annotated[int, Tag(13, most=COUNT)] = 0
    """In the first chunk of a run: tokens of its prompt, for whoever never hears its end."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a whole run, over all its choices."""

    prompt_tokens: Annotated[int, Tag(1, most=COUNT)] = 0
    completion_tokens: Annotated[int, Tag(2, most=COUNT)] = 0
    cached_tokens: Annotated[int, Tag(3, most=COUNT)] = 0
    """Prompt tokens that were not computed again."""
    guessed_tokens: Annotated[int, Tag(4, most=COUNT)] = 0
    """Tokens that were computed along with the next one, in case they follow it."""
    accepted_tokens: Annotated[int, Tag(5, most=COUNT)] = 0
    """Those of them that did."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a run went, in milliseconds, measured on the serving node."""

    queue_ms: Annotated[float, Tag(1, most=RATE)] = 0.0
    prefill_ms: Annotated[float, Tag(2, most=RATE)] = 0.0
    decode_ms: Annotated[float, Tag(3, most=RATE)] = 0.0


# --- membership ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Hello:
    """First message in both directions. Nothing else is heard before it."""

    KIND: ClassVar[int] = 1
    version_low: Annotated[int, Tag(1, most=255)]
    version_high: Annotated[int, Tag(2, most=255)]
    mesh: Annotated[str, Tag(3, most=Name)]
    boot: Annotated[int, Tag(4, most=BOOTS)]
    name: Annotated[str, Tag(5, most=Name)] = ""
    agent: Annotated[str, Tag(6, most=Name)] = ""
    addresses: Annotated[
        tuple[str, ...], Tag(7, most=ADDRESS_BYTES, items=limits.ADDRESSES_PER_PEER)
    ] = ()
    credential: Annotated[Credential | None, Tag(8)] = None
    """That the sender is a member; none in an open mesh."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The sender leaves, or will not talk to the receiver; `reason` is for a person."""

    KIND: ClassVar[int] = 2
    reason: Annotated[str, Tag(1, most=DETAIL_BYTES)] = ""
    leaving: Annotated[bool, Tag(2)] = False
    code: Annotated[str, Tag(3, most=32)] = ""
    """Why the receiver is not let in, for a program; empty for any other reason."""


@dataclass(frozen=True, slots=True)
class Presence:
    """The sender is here, and so busy. The newest by (boot, seq) counts."""

    KIND: ClassVar[int] = 3
    boot: Annotated[int, Tag(1, most=BOOTS)]
    seq: Annotated[int, Tag(2, most=COUNT)]
    loads: Annotated[tuple[EngineLoad, ...], Tag(3, items=limits.SPECIALISTS)] = ()
    next_ms: Annotated[int, Tag(4, most=600_000)] = limits.PRESENCE_MS
    """When the receiver will hear the next one."""
    capability: Annotated[int, Tag(5, most=COUNT)] = 0
    """Revision of the sender's newest `Capability`; a receiver with an older one asks for it."""


@dataclass(frozen=True, slots=True)
class Capability:
    """What the sender can do. The newest by (boot, revision) counts."""

    KIND: ClassVar[int] = 4
    boot: Annotated[int, Tag(1, most=BOOTS)]
    revision: Annotated[int, Tag(2, most=COUNT)]
    specialists: Annotated[tuple[Specialist, ...], Tag(3, items=limits.SPECIALISTS)] = ()
    hardware: Annotated[Hardware, Tag(4)] = Hardware()
    roles: Annotated[tuple[str, ...], Tag(5, most=32, items=8)] = ()


@dataclass(frozen=True, slots=True)
class CapabilityWanted:
    """The receiver's capability is missing here, or older than its presence says; send it again."""

    KIND: ClassVar[int] = 5


@dataclass(frozen=True, slots=True)
class Peers:
    """Where other members listen, as the sender has heard. Of version 1."""

    KIND: ClassVar[int] = 8
    peers: Annotated[tuple[PeerAddress, ...], Tag(1, items=limits.PEERS_PER_EXCHANGE)] = ()


# --- tasks: origin to serving node --------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class TaskSubmit:
    """Run this. Sent again until answered; the same (task, attempt) runs once."""

    KIND: ClassVar[int] = 16
    task: Annotated[TaskId, Tag(1, most=64)]
    attempt: Annotated[int, Tag(2, most=ATTEMPTS)]
    profile: Annotated[str, Tag(3, most=Name)]
    request: Annotated[TaskRequest, Tag(4)]
    remaining_ms: Annotated[int, Tag(5, most=limits.DEADLINE_MS)]
    patience_ms: Annotated[int, Tag(6, most=limits.DEADLINE_MS)] = 0
    """Refuse it where it would wait for longer; 0: it may wait."""


@dataclass(frozen=True, slots=True)
class TaskResend:
    """Send the stream again from item `seq`: it is missing, or nothing came for a while."""

    KIND: ClassVar[int] = 17
    task: Annotated[TaskId, Tag(1, most=64)]
    attempt: Annotated[int, Tag(2, most=ATTEMPTS)]
    seq: Annotated[int, Tag(3, most=COUNT)]


@dataclass(frozen=True, slots=True)
class TaskDone:
    """The stream was received whole; the serving node may forget it."""

    KIND: ClassVar[int] = 18
    task: Annotated[TaskId, Tag(1, most=64)]
    attempt: Annotated[int, Tag(2, most=ATTEMPTS)]


@dataclass(frozen=True, slots=True)
class TaskCancel:
    """Nobody wants the answer any more."""

    KIND: ClassVar[int] = 19
    task: Annotated[TaskId, Tag(1, most=64)]
    attempt: Annotated[int, Tag(2, most=ATTEMPTS)]


# --- tasks: serving node to origin --------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class TaskAccepted:
    """It waits or runs here, and its stream has `items` items so far. Also answers a probe."""

    KIND: ClassVar[int] = 24
    task: Annotated[TaskId, Tag(1, most=64)]
    attempt: Annotated[int, Tag(2, most=ATTEMPTS)]
    ahead: Annotated[int, Tag(3, most=COUNT)] = 0
    """Runs before it in the queue."""
    items: Annotated[int, Tag(4, most=COUNT)] = 0


@dataclass(frozen=True, slots=True)
class TaskRefused:
    """It does not run here, and produced nothing."""

    KIND: ClassVar[int] = 25
    task: Annotated[TaskId, Tag(1, most=64)]
    attempt: Annotated[int, Tag(2, most=ATTEMPTS)]
    code: Annotated[str, Tag(3, most=32)]
    detail: Annotated[str, Tag(4, most=DETAIL_BYTES)] = ""
    retry_after_ms: Annotated[int, Tag(5, most=COUNT)] = 0
    wait_ms: Annotated[float, Tag(6, most=RATE)] = 0.0
    """It would wait here for so long, which is longer than it may; 0: that is not why."""


@dataclass(frozen=True, slots=True)
class TaskChunk:
    """Item `seq` of the stream: tokens."""

    KIND: ClassVar[int] = 26
    task: Annotated[TaskId, Tag(1, most=64)]
    attempt: Annotated[int, Tag(2, most=ATTEMPTS)]
    seq: Annotated[int, Tag(3, most=COUNT)]
    chunk: Annotated[Chunk, Tag(4)]


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """Last item of the stream: every choice finished."""

    KIND: ClassVar[int] = 27
    task: Annotated[TaskId, Tag(1, most=64)]
    attempt: Annotated[int, Tag(2, most=ATTEMPTS)]
    seq: Annotated[int, Tag(3, most=COUNT)]
    usage: Annotated[Usage, Tag(4)]
    timings: Annotated[Timings, Tag(5)]


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """Last item of the stream: the run broke off."""

    KIND: ClassVar[int] = 28
    task: Annotated[TaskId, Tag(1, most=64)]
    attempt: Annotated[int, Tag(2, most=ATTEMPTS)]
    seq: Annotated[int, Tag(3, most=COUNT)]
    code: Annotated[str, Tag(4, most=32)]
    detail: Annotated[str, Tag(5, most=DETAIL_BYTES)] = ""
    retry_after_ms: Annotated[int, Tag(6, most=COUNT)] = 0
    param: Annotated[str, Tag(7, most=Name)] = ""
    """Field of the request that is at fault, if one is."""


Message = (
    Hello
    | Goodbye
    | Presence
    | Capability
    | CapabilityWanted
    | Peers
    | TaskSubmit
    | TaskResend
    | TaskDone
    | TaskCancel
    | TaskAccepted
    | TaskRefused
    | TaskChunk
    | TaskEnded
    | TaskFailed
    | AdmissionMessage
    | DetectionMessage
    | ConsensusMessage
    | StateMessage
    | DrainMessage
    | GrowthMessage
    | ReachMessage
    | WhereaboutsMessage
)
