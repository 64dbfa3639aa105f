"""Who may answer, what is known about it, and what a choice among them comes to.

Plain values; `core.route` decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshslm.errors import FaultCode
from meshslm.ids import Instant, NodeId
from meshslm.wire.messages import EngineLoad, Hardware, Specialist

_UNTOLD = Hardware()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A specialist on a node."""

    node: NodeId
    node_name: str
    specialist: Specialist
    load: EngineLoad | None
    rtt_ms: float | None
    local: bool = False
    hardware: Hardware = _UNTOLD
    told: Instant = Instant(0)
    """When its load came here."""
    upstream: bool = False
    """It stands for an endpoint outside the mesh, behind this very node."""

    @property
    def tried_as(self) -> NodeId:
        """What stands among the nodes that were tried: an upstream is no part of its node."""
        return NodeId(f"{self.node}/upstream") if self.upstream else self.node


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whom to ask, and why."""

    candidate: Candidate
    reason: str
    """For a person, in ASCII: it becomes a response header."""
    first_ms: float = 0.0
    """Expected time until its first token."""
    domain: str = ""
    """Domain that the text was taken for; empty where it did not decide."""
    patience_ms: float = 0.0
    """The candidate may refuse rather than let it wait for longer; 0: it is to take it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nobody can be asked. `exhausted`: there were candidates, but all had been tried."""

    code: FaultCode
    detail: str
    exhausted: bool = False


@dataclass(slots=True)
class Terms:
    """What asking one candidate is expected to cost, each part in milliseconds."""

    network: float = 0.0
    queue: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    load: float = 0.0
    """Until its model is in memory."""
    price: float = 0.0
    power: float = 0.0
    reliability: float = 0.0
    trust: float = 0.0
    """What it took longer than it promised, so far."""
    sticky: float = 0.0
    """Of leaving the node where the conversation is."""
    total: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.total = (
            self.network
            + self.queue
            + self.prefill
            + self.decode
            + self.load
            + self.price
            + self.power
            + self.reliability
            + self.trust
            + self.sticky
        )

    @property
    def first(self) -> float:
        """Until the first token."""
        return self.network + self.queue + self.prefill + self.load

    @property
    def busy(self) -> float:
        """Until the last token, by what is promised and measured."""
        return self.first + self.decode + self.trust


@dataclass(frozen=True, slots=True)
class Assessment:
    """One candidate as a choice sees it."""

    candidate: Candidate
    dropped: str
    """Which filter dropped it and why; empty where it was in the choice."""
    terms: Terms | None
    """None where it was dropped before it was scored."""
    rank: int
    """Place among those that were scored, from 1; 0 where it was not."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A choice with everything that it was made of."""

    outcome: Verdict | Refusal
    strategy: str
    assessments: tuple[Assessment, ...]
    domains: tuple[tuple[str, float], ...] = ()
    """What the text was taken for, the likeliest first."""
    complexity: float | None = None
    tier: str = ""
    signs: tuple[tuple[str, float], ...] = ()
    """What the complexity is the sum of, the weightiest first."""
