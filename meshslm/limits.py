"""Every bound in the program, with its unit and its reason.

Rules:
- A queue, table, message or loop without a bound here is a defect.
- A bound that a user may want to move is a setting, and its default is here.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- the wire -----------------------------------------------------------------------------------
FRAME_BYTES: Final = 64 * KIB
"""Largest frame on a link: one frame never holds up a more urgent one for over a millisecond
at the 60 MB/s measured through Noise and Yamux."""

MESSAGE_BYTES: Final = 2 * MIB
"""Largest message after joining its frames: a 128k-token prompt is about 0.6 MB of text."""

MESSAGE_DEPTH: Final = 8
"""Deepest nesting in a message; the deepest of ours is 5."""

LANE_QUEUE_BYTES: Final = 4 * MIB
"""Bytes waiting to be written to one peer in one lane. A peer that lets more pile up is cut off."""

BULK_WORTH_BYTES: Final = 64 * KIB
"""Waiting in the background lane for a moment: then a connection of its own is worth its handshake.
Less is out before that would stand."""

BULK_UNKNOWN_BYTES: Final = MIB
"""Sent over such a connection and not known to be there: 10 MB/s at a round trip of 100 ms. It is
kept, and goes again in the lane where the connection breaks."""

# --- the link -----------------------------------------------------------------------------------
CONNECTIONS: Final = 256
"""Connections of one node, authenticated or not yet; up to 64 nodes everybody knows everybody."""

HANDSHAKES: Final = 64
"""Accepted sockets not authenticated yet: each costs 2 ms of a core and may take five seconds."""

CONNECTIONS_PER_SOURCE: Final = 128
"""Accepted connections from one IP address (or IPv6 network of 64 bits): a whole mesh may be behind
one NAT, but nobody else is kept out by it."""

CONNECTIONS_PER_PEER: Final = 4
"""Accepted connections of one identity: it needs one, and a second one while the first dies."""

HANDSHAKES_PER_SOURCE_S: Final = 32
HANDSHAKES_PER_SOURCE_BURST: Final = 128
"""Handshakes with callers at one IP address, in a second and at once: at 2 ms each they take a
sixteenth of a core. Those beyond wait their turn."""

SOURCES: Final = 1_024
"""IP addresses whose handshakes are counted."""

PEER_MESSAGES_PER_S: Final = 20_000
PEER_MESSAGES_BURST: Final = 40_000
"""Messages taken from one peer; one that sends more waits. A core handles about as many in all, so
that one peer alone never gets it to itself for long; streams of a hundred answers bring 10,000."""

PEER_BYTES_PER_S: Final = 64 * MIB
PEER_BYTES_BURST: Final = 64 * MIB
"""Bytes taken from one peer: what Noise and Yamux carry at best, 60 MB/s measured."""

STREAMS_PER_CONNECTION: Final = 16
"""Streams open at a time on one connection. One is ours; other libp2p implementations open a few
short ones to identify and to ping."""

STREAM_OPENINGS: Final = 64
STREAM_OPENINGS_S: Final = 10.0
"""Streams that a peer may open in so many seconds; opening and dropping them costs us, not it."""

RELAY_S: Final = 3_600
"""Life of a reservation, and of a circuit: it is made again without losing tasks."""

RELAY_RESERVATIONS: Final = 128
RELAY_CIRCUITS: Final = 64
RELAY_CIRCUITS_PER_PEER: Final = 16
"""Places that one relay gives, circuits through it, and those that one member may begin or be
called by: each circuit holds up to 2 MiB that wait for a slow side."""

RELAY_BYTES: Final = 1024 * MIB
"""Both ways through one circuit; answers take some KiB each. Bulk is what this keeps off."""

RELAY_PIECE: Final = 16 * KIB
"""Carried on at a time, so that nothing of the relay's own waits for more than that."""

# --- membership ---------------------------------------------------------------------------------
PRESENCE_MS: Final = 1000
"""Time between two presences to the same peer, up to `PRESENCE_PER_SECOND` peers."""

PRESENCE_PER_SECOND: Final = 64
"""Presences that one node sends a second. Beyond so many peers each hears less often, so that a
node's traffic does not grow with the mesh."""

PEERS: Final = 1024
"""Peers in the table of one node."""

HEARSAY: Final = PEERS // 4
"""Peers that one member, or everything on the local network, may tell of without any of them having
been reached: so one that lies leaves room for the truth."""

PEERS_PER_EXCHANGE: Final = 64
"""Peers told of in one message, with their addresses: about 5 KiB."""

PEERS_PER_INTRODUCTION: Final = 16
"""Peers told of to each that dials, in a mesh so large that presences take turns: a newcomer to a
mesh of n hears of n times as many."""

ADDRESSES_PER_PEER: Final = 8
"""Addresses remembered of one peer: a few interfaces in two families."""

HELLO_MS: Final = 5_000
"""A connected peer that has not said hello by then is dropped."""

DIAL_BACKOFF_MS: Final = 500
DIAL_BACKOFF_MOST_MS: Final = 30_000
"""First and longest wait between dials to the same peer; doubles, with jitter."""

DIAL_STAGGER_MS: Final = 250
"""Between dials to two addresses of one peer, unless the first fails sooner: what RFC 8305 has."""

DIAL_LASTING_MS: Final = 2_000
DIAL_SOON_MS: Final = 100
"""A link that was lost is dialled again at once, unless one to the same peer was lost so shortly
before; a peer that is found elsewhere is dialled there within so little, and so is one that dropped
a dial just after its link: it may be dying."""

LINK_GRACE_MS: Final = 3_000
"""Time that a peer whose link broke has to be linked again before its tasks are given up: three
rounds of dials. An answer that another node can go on with does not wait so long for its next item
(`STREAM_SILENT_MS`)."""

REACH_MS: Final = 2_000
"""Between two looks at how this node is reached; messages go out only where something is due."""

REACH_AGAIN_MS: Final = 300_000
"""A member that has tried to dial this node is asked again after so long: NATs and routers are
changed by hand, or with a new lease."""

WITNESSES: Final = 3
"""Members asked of those that see this node in one place: one liar is outvoted."""

DIAL_BACKS: Final = 32
DIAL_BACKS_PER_PEER: Final = 4
DIAL_BACKS_MS: Final = 60_000
"""Dials on others' behalf in such a time, for all and for each: a handshake's CPU time each."""

RELAYS: Final = 2
"""Relays that a node keeps which cannot be dialled: one may go."""

RENEW_MS: Final = 600_000
RELAY_AGAIN_MS: Final = 60_000
"""A reservation is renewed after so long, and a relay that refused is asked again; a reservation
lasts for an hour."""

UPGRADE_WAITS_MS: Final = (5_000, 20_000, 600_000)
UPGRADE_LEAST_MS: Final = 2_000
"""Waits between tries for a direct link in a relayed one's place, three of them as in DCUtR and
then now and then; and the least between two that the other side begins."""

PEER_FORGET_MS: Final = 600_000
"""A peer that could not be reached for so long is dialled no more, unless configured."""

# --- conduct -------------------------------------------------------------------------------------
HOUSEKEEPING_PER_S: Final = 400
HOUSEKEEPING_BURST: Final = 4_000
"""Messages of one peer that are not about tasks: an honest one sends some ten a second, and a
burst of what piled up while this node was stopped."""

BAN_MS: Final = 1_000
BAN_MOST_MS: Final = 3_600_000
"""First and longest time without a link to a peer that broke the protocol; four times as long with
each strike, so that one mistake costs a second and an attack gets an hour."""

BAN_FORGIVE_MS: Final = 600_000
"""Time without a strike that makes up for one."""

CONDUCT_RECORDS: Final = 2_048
"""Identities whose conduct is remembered: twice as many as peers are known."""

# --- capability ---------------------------------------------------------------------------------
SPECIALISTS: Final = 64
"""Specialists that one node may announce."""

ADAPTERS_ANNOUNCED: Final = 32
"""LoRA adapters that one specialist may announce: with names of the store, 2 KiB."""

DOMAINS_PER_SPECIALIST: Final = 16
EXAMPLES_PER_CARD: Final = 64
"""Examples of one domain card: nine each were enough to measure with, more helps little."""

NAME_BYTES: Final = 128
"""A profile, model, domain or node name."""

CARD_TEXT_BYTES: Final = 1 * KIB
"""One sentence or example of a domain card."""

# --- tasks --------------------------------------------------------------------------------------
MESSAGES_PER_REQUEST: Final = 512
"""Turns of one conversation."""

PROMPT_BYTES: Final = 1 * MIB
"""Text of one request, all turns together: above the longest context we serve."""

STOPS: Final = 16
STOP_BYTES: Final = 256
"""Stop strings of one request, and the length of one: each is looked for at every token."""

LOGIT_BIASES: Final = 1024
"""OpenAI's own limit is 300; some clients ban word lists."""

CHOICES: Final = 16
"""`n` of one request: each is a sequence in the batch."""

TOP_LOGPROBS: Final = 20
"""OpenAI's limit."""

MAX_TOKENS: Final = 1_000_000
"""Above every context length there is."""

REQUEST_TOKENS: Final = 1_000_000
"""Tokens that all answers of one request may have together: what one may have alone."""

PROMPTS: Final = 64
"""Prompts, or lists of tokens, in one request: each is a task of its own in the queues."""

PROMPTS_AT_ONCE: Final = 8
"""Of them under way at a time, so that one request does not fill an engine's queue."""

DEADLINE_MS: Final = 600_000
"""Default, and longest, time for one request."""

QUEUE_PER_ENGINE: Final = 64
"""Runs waiting for one engine: at 1 s each and 8 slots the last waits 8 s; longer is no service."""

DELIVERED_TOKENS: Final = 131_072
"""Tokens of an answer that is continued elsewhere: as long as the longest contexts of small
models."""

DELIVERED_TEXT_BYTES: Final = 512 * KIB
"""Text of an answer that another model goes on with: as much as the most tokens mostly
have, and beside the longest prompt it fits into a message."""

PREFIX_MARK_BYTES: Final = 4
PREFIX_DIGEST_BYTES: Final = 64
"""Marks of warm conversations in a node's presence: eight slots with two each. Presence stays below
400 bytes."""

RUN_AHEAD: Final = 2
"""Runs given to an engine beyond its slots, so that a freed slot is filled without a round trip."""

TASKS_PER_NODE: Final = 4096
"""Tasks that entered at one node and have not ended."""

TASKS_PER_PEER: Final = 256
"""Runs that one peer may have on this node at a time."""

ATTEMPTS: Final = 8
"""Nodes tried for one task."""

SUBMIT_RETRY_MS: Final = 500
"""A submitted task not answered by then is sent again: five times the LAN's worst round trip."""

STALL_PROBE_MS: Final = 2_000
"""A stream silent for so long is asked for its next item."""

STREAM_PROBE_MS: Final = 330
"""A stream that flowed, and stopped for so long, is asked for its next item."""

STREAM_SILENT_MS: Final = 1_000
"""A stream whose node answers nothing for so long, not even two such questions, goes on elsewhere
if somebody can take it: so its client waits less than 2 s, what that one computes included."""

STREAM_STALLED_MS: Final = 3_000
"""The same where the node answers, but there is no item: it may be busy with others' prompts."""

SILENCE_MS: Final = 10_000
"""A stream whose node has answered nothing at all for so long is given up."""

REORDER_ITEMS: Final = 256
"""Items of a stream held back while an earlier one is missing."""

GAP_MS: Final = 50
"""Wait before a missing item is asked for again: reordering usually heals itself by then."""

LINGER_MS: Final = 30_000
"""How long a finished stream is kept for a peer that may ask for its items again."""

ACCEPT_MS: Final = 3_000
"""A submitted task that its node has not taken by then goes to another: six submissions lost."""

HEDGE_SAMPLES: Final = 128
HEDGE_LEAST: Final = 20
"""First tokens of one kind that are remembered, and that there must be before one is called late:
with fewer, the slowest twentieth is none."""

HEDGE_KINDS: Final = 256
"""Kinds of requests whose first tokens are remembered, those last seen."""

HEDGE_BURST: Final = 4.0
"""Requests that may be asked of two nodes in a row, after many that were not."""

DRAIN_MS: Final = 3_600_000
"""Longest time that a node may take to leave."""

DRAIN_LOOK_MS: Final = 50
DRAIN_TELL_EVERY: Final = 10
"""Between two looks whether a leaving node is free to go, and looks between telling the origins of
what is left there: twice a second, as a message may be lost or somebody new may come."""

TRACKED_ENGINES: Final = 4_096
"""Engines whose answers are measured at one origin: 300 bytes each, a mesh of a thousand nodes."""

TRACKED_KINDS: Final = 1_024
"""Selectors and domains whose answers' lengths are remembered at one origin."""

PRIVATE_NODES: Final = 256
"""Nodes with private domains whose cards are remembered when they are gone: some kilobytes each."""

TURNS_JUDGED: Final = 32
"""Earlier turns of a user that are looked at before a conversation goes to an upstream, where some
domain is private: 0.3 ms each."""

LEAST_TPS: Final = 0.01
"""Least speed that is believed of an engine that tells one, in tokens a second: of a smaller one
the time of an answer may be more than a number can say."""

CONVERSATIONS: Final = 4_096
"""Conversations whose last node is remembered at one origin: 200 bytes each."""

COOL_MS: Final = 1_000
COOL_MOST_MS: Final = 60_000
"""First and longest time that an engine which failed is left alone; doubles. A restarted worker is
ready in under 2 s; and a lasting fault delays one request a minute at most."""

COOL_TRIAL_MS: Final = 10_000
"""A trial without outcome by then counts as none: its client may have left, and after
`SILENCE_MS` its node is given up anyway."""

COOLING_ENGINES: Final = 1_024
"""Engines that failed of late, remembered at one origin."""

RETRY_WAIT_MS: Final = 400
"""First wait before asking nodes again that all failed; doubles. A restarted worker is ready in
under 2 s, so the third attempt finds it."""

RESEND_ITEMS: Final = 64
"""Items sent again for one request; the asker asks on from there."""

DIALS: Final = 32
"""Dials under way at once: each holds a socket and a handshake's CPU time."""

HELLO_RESEND_MS: Final = 1_000
"""A hello that was not answered by then is said again."""

EXCHANGE_EVERY: Final = 10
"""Presences between two peer lists sent to a random peer, which heal what a loss left out."""

EXCHANGES_OF_NEWS: Final = 10
"""Peer lists sent, one a second to a random peer each, after somebody has come: nodes that met the
same third one at different times find each other. News so spread doubles its reach every second."""

CLASSIFY_BYTES: Final = 2 * KIB
"""Text looked at to find its domain, half from the head and half from the tail."""

GIST_CHARACTERS: Final = 152
GIST_BEFORE_CHARACTERS: Final = 64
"""Of a request and of the turn before it, for an embedding model: some 60 tokens, so that a small
model reads them in 20 ms on two cores."""

WORDS_CHARACTERS: Final = 1024
"""Of a request where words alone decide: long texts have more of them to tell by."""

TEXTS_PER_DOMAIN: Final = 128
CARD_TEXTS: Final = 4096
"""Texts of cards that have vectors, of one domain and of all: a minute of a core, once."""

EMBED_WAIT_MS: Final = 50
"""How long a request waits for its own vector before words alone decide."""

VECTORS_KEPT: Final = 1024
"""Vectors of requests that are kept for their next attempts: 1.5 KiB each."""

DIAL_MS: Final = 15_000
"""A dial without an outcome by then is counted as failed: three times the link's own deadline."""

# --- configuration and models -------------------------------------------------------------------
TOML_BYTES: Final = 1 * MIB
"""A configuration file or profile: the packaged profiles have about 4 KiB."""

SYSTEM_PROMPT_CHARACTERS: Final = 16 * KIB
"""System prompt of a profile: prefilled with every conversation, so longer would not be used."""

MODEL_BYTES: Final = 64 * 1024 * MIB
"""Largest model file that is pulled: a 70-billion model in Q4 has 40 GiB."""

DISK_RESERVE_BYTES: Final = 64 * MIB
"""Disk space left free by pulling, so that journals and logs go on: a guess."""

PULL_ATTEMPTS: Final = 5
"""Tries in a row without a byte of progress before a download is given up; it can be resumed."""

PULL_BACKOFF_MS: Final = 500
"""Wait after the first such try; doubles."""

PULL_IDLE_MS: Final = 10_000
"""A download that brings nothing for so long is tried again; it goes on where it was, so this may
be short, and it is the longest that stopping a download takes."""

REDIRECTS: Final = 5
"""Redirects followed from one URL; model hubs use one or two."""

# --- HTTP ---------------------------------------------------------------------------------------
HTTP_PORT: Final = 7416
"""Where a node answers HTTP unless told otherwise: registered for nothing."""
PATIENT_ATTEMPTS: Final = 6
"""Attempts of a task whose node may send it on because it would wait there: what is known of the
others' queues is a presence old, what a node knows of its own is not. Two of `ATTEMPTS` are left
for nodes that fail."""


ALLOWED_HOSTS: Final = 32
"""Names that a node on loopback answers to beside loopback's own."""

HTTP_BODY_BYTES: Final = 4 * MIB
"""Body of one request: `PROMPT_BYTES` of text, and room for JSON's escapes."""

HTTP_BODY_MS: Final = 30_000
"""Time for a request's body to arrive: 4 MiB over a bad mobile link."""

HTTP_HEAD_BYTES: Final = 32 * KIB
"""Request line and headers together; browsers and proxies send 2 KiB."""

HTTP_CONNECTIONS: Final = 1024
"""Open connections; beyond them a client is told 503. Each holds a descriptor and some 100 KB."""

HTTP_IDLE_MS: Final = 75_000
"""A kept-open connection without a request: longer than the idle pools of HTTP clients (5-60 s),
so that the client closes first and no request meets a closing connection."""

HTTP_STALL_MS: Final = 30_000
"""A client that takes nothing of its answer for so long is cut off."""

HTTP_GRACE_MS: Final = 2_000
"""Time for open answers to end when the node stops: they were told to fail before that."""

HTTP_LINGER_MS: Final = 2_000
HTTP_LINGER_BYTES: Final = 32 * MIB
"""How long, and how much of, a refused body is still read after the refusal was sent: closing at
once would reset the connection, and the client would never see why."""

UPSTREAM_ROUNDS: Final = 2
"""Waits before an upstream that failed is asked again where nobody else will do: 0.4 and 0.8 s. Who
is paid for answers may be paid for those that broke off, too."""

UPSTREAM_LINE_BYTES: Final = 256 * KIB
"""One event of an upstream's stream: a token or some, and what is told beside it."""

UPSTREAM_ANSWER_BYTES: Final = 64 * MIB
"""All of an upstream's answer: a hundred thousand tokens with an envelope of 600 bytes each."""

HTTP_PARAM_CHARS: Final = 200
"""Of a client's own words repeated in an error message."""

CONTENT_PARTS: Final = 256
"""Parts of one message's content."""

KNOWN_RUNS: Final = 16_384
"""Runs remembered on one node, those that are over included: 500 a second for `LINGER_MS`."""

# --- answers of a given form ---------------------------------------------------------------------
TOOLS: Final = 128
"""Tools of one request: OpenAI's limit."""

TOOL_CALLS: Final = 64
"""Calls in one turn."""

TOOL_NAME_BYTES: Final = 64
"""OpenAI's limit."""

SCHEMA_BYTES: Final = 64 * KIB
"""A JSON schema or a grammar: compiled before a run starts, so a large one delays others."""

INPUTS: Final = 1024
"""Texts of one request for embeddings or scores."""

GIVEN_TOKENS: Final = 1024
"""Tokens in a message as a list of numbers; more are packed."""

PACKED_TOKENS: Final = 131_072
"""Tokens that a request may give instead of text, in one list: as many as `DELIVERED_TOKENS`."""

TOOLS_BYTES: Final = 256 * KIB
"""All tools of one request together: longer than most contexts have room for."""

RESPONSES: Final = 1024
RESPONSES_BYTES: Final = 64 * MIB
RESPONSES_MS: Final = 3_600_000
"""Answers kept for a request that goes on from them: so many, of so many bytes, for an hour."""

VECTOR_BYTES: Final = 64 * KIB
"""One embedding: 16,384 numbers of 32 bits."""

ADAPTERS: Final = 64
"""LoRA adapters in one engine's memory; those beyond are brought again when asked for."""

ADAPTERS_BYTES: Final = 1024 * MIB
"""Their weights together: some tens of MiB each for small models."""

# --- the daemon ---------------------------------------------------------------------------------
MODEL_TURN_MS: Final = 10_000
"""Time that a loaded model may take new runs while another waits for its memory: a load takes a
second or some, so at most a fifth of the time goes into changing places."""

MODEL_RETRY_MS: Final = 30_000
MODEL_RETRY_MOST_MS: Final = 600_000
"""First and longest wait before a model that could not be loaded is tried again; doubles. A lack
of memory may pass, a damaged file does not mend itself."""

STREAM_BYTES: Final = 4 * MIB
"""Of one answer that wait for a slow local client, about: more than all text of most contexts."""

MERGED_TOKENS: Final = 64
"""Tokens told at once to a client that is behind: a second or so of a stream."""

COALESCE_MS: Final = 25
"""A token of an answer that goes to another node waits at most so long for those that follow it, so
that the two nodes are woken once for them: 40 pieces a second are more than a reader can see."""

EVENTS_PER_TURN: Final = 32
"""Events handled in one go before other tasks of the loop get a turn: under a millisecond."""

# --- admission ----------------------------------------------------------------------------------
STATEMENT_BYTES: Final = 8 * KIB
"""A certificate or notice before it is signed: 32 domains and 32 namespaces of full length."""

CERTIFIED_NAMES: Final = 32
"""Domains, or namespaces, that one certificate names; more are `*`."""

TOKEN_BYTES: Final = 8 * KIB
"""A join token: about 500 bytes as made, 150 more each time that it is narrowed."""

TOKEN_FACTS: Final = 256
TOKEN_CHECK_MS: Final = 250
"""Facts in a token, and time to check it: it takes 1 ms where the machine is not busy, and may be
a stranger's."""

JOINS: Final = 32
"""Join requests that wait to be checked: each takes milliseconds and a write to disk."""

CERTIFICATE_S: Final = 30 * 24 * 3600
"""Life of a certificate: a node that was off for a fortnight still gets in, and a revocation that
never arrived ends by itself."""

CERTIFICATE_LEAST_S: Final = 60
"""Shortest life of a certificate: its renewal must have time to be tried more than once."""

CLOCK_SKEW_S: Final = 300
"""How wrong members' clocks may be against each other: a certificate begins so much early."""

ADMISSION_SWEEP_MS: Final = 5_000
"""Between two looks for certificates that ran out and for a renewal that is due."""

NOTICES: Final = 4096
"""Revocations and changes of key that a mesh keeps: 200 bytes each."""

SUCCESSIONS: Final = 16
"""Changes of a mesh's key, each of which every credential carries on: 200 bytes."""

NOTICES_PER_MESSAGE: Final = 64
NOTICES_DIGEST_BYTES: Final = 8

NOTICES_AGAIN_MS: Final = 5_000
"""Between two times that one member is told all notices, up to 800 KB: who still lacks some asks
again, or is asked."""

QUARANTINE_BYTES: Final = 64 * KIB
QUARANTINE_MESSAGES: Final = 16
"""What is heard of a node that dialled us and is no member yet: a hello takes 2 KiB, and is said
six times."""

# --- flight recorder ----------------------------------------------------------------------------
RECORDING_MIB: Final = 8
"""Room for packed steps: a day of a quiet node with three peers, whole."""

RECORDING_SEGMENT_BYTES: Final = 64 * 1024
"""Steps that are packed together: enough to pack well, and a millisecond of work."""

RECORDING_LINE_BYTES: Final = 16 * 1024 * 1024
"""One step in a file: the largest message, in base64, several times over."""

RECORDINGS_KEPT: Final = 5
"""Files of crashes in the data folder; older ones make room."""
