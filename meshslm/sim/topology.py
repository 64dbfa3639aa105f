"""Where nodes stand in the network: regions, NAT boxes, and the access lines of groups of them.

Rules:
- Nodes are dealt to groups in the order of the groups, so the first group has the nodes that
  everybody is configured to dial.
- A node of no group stands in the plain network of the scenario.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from meshslm.sim.tables import NotNegative, Positive, Share, Table

Region = Literal["", "us-east", "us-west", "europe", "india", "japan", "brazil", "australia"]
REGIONS: Final = get_args(Region)[1:]

_ONE_WAY_MS: Final = (
    (1,),
    (32, 1),
    (42, 70, 1),
    (95, 110, 60, 1),
    (78, 52, 115, 62, 1),
    (57, 87, 95, 150, 130, 1),
    (100, 70, 135, 75, 52, 155, 1),
)
"""Median one-way latency between two regions, ms: half the round trips that cables of these
lengths allow with the detours that are usual. Round figures, chosen, not measured."""


def region_latency_ms(one: str, other: str) -> float:
    """Median one-way latency between two regions."""
    low, high = sorted((REGIONS.index(one), REGIONS.index(other)))
    return float(_ONE_WAY_MS[high][low])


class Group(Table, frozen=True):
    """Nodes that stand alike."""

    name: str
    share: Positive = 1.0
    """How many of the nodes, relative to the other groups."""
    region: Region = ""
    """Latencies to nodes of other regions are the distance's; empty: those of `[network]`."""
    nat: Literal["none", "shared", "own"] = "none"
    """Members can dial out and not be dialled: all behind one box, by which they reach each other,
    or each behind its own."""
    symmetric: bool = False
    """The boxes give each connection another port outside, so that nobody gets in even where both
    sides dial at the same time."""
    relay: bool = False
    """Members relay for others. Where any group's do, every node finds out how it is reached."""
    latency_ms: NotNegative = 0.0
    """Of the access line, added to each message, either way."""
    loss: Share = 0.0
    """Of the access line, beside the network's."""
    bandwidth_mbit: Positive | None = None
    """Of a member's uplink; left out: the network's."""
    speed: Positive = 1.0
    """How fast its engines are, compared with what profiles say."""


class Topology:
    """Which group each node is of, and what follows for two of them."""

    def __init__(self, groups: tuple[Group, ...], nodes: int) -> None:
        self.nodes = nodes
        self._places = _dealt(groups, nodes)
        self.flat = not any(group.nat != "none" for group in groups)
        """Everybody can dial everybody."""
        self.relays = any(group.relay for group in groups)
        """Some nodes relay for others."""
        self._numbers = {id(group): number for number, group in enumerate(groups, 1)}

    def group(self, node: int) -> Group | None:
        """The group of a node, if the scenario has any."""
        return self._places[node] if self._places else None

    def dials(self, source: int, target: int) -> bool:
        """Whether a dial gets through to the target's machine."""
        if self.flat:
            return True
        to = self._places[target]
        return to.nat == "none" or (to.nat == "shared" and self._places[source] is to)

    def meet(self, one: int, other: int) -> bool:
        """Whether the two can be linked, whoever dials."""
        return self.flat or self.dials(one, other) or self.dials(other, one)

    def box(self, node: int) -> int | None:
        """The number of a node's NAT box, below zero where others are behind it too; None: none."""
        group = self.group(node)
        if group is None or group.nat == "none":
            return None
        return node if group.nat == "own" else -self._numbers[id(group)]

    def together(self, one: int, other: int) -> bool:
        """Whether both are behind the same box."""
        box = self.box(one)
        return box is not None and box == self.box(other)

    def symmetric(self, node: int) -> bool:
        """Whether a node's box gives each connection another port outside."""
        group = self.group(node)
        return group is not None and group.nat != "none" and group.symmetric

    def relaying(self, node: int) -> bool:
        """Whether a node relays for others."""
        group = self.group(node)
        return group is not None and group.relay

    def distance_ms(self, one: int, other: int) -> float | None:
        """Median latency between two regions; None where they have none."""
        if not self._places:
            return None
        near, far = self._places[one], self._places[other]
        return region_latency_ms(near.region, far.region) if near.region and far.region else None


def _dealt(groups: tuple[Group, ...], nodes: int) -> tuple[Group, ...]:
    total = sum(group.share for group in groups)
    places: list[Group] = []
    seen = 0.0
    for group in groups:
        seen += group.share
        places.extend([group] * (round(nodes * seen / total) - len(places)))
    return tuple(places)
