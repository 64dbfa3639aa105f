"""Who decides: configurations that differ by one seat."""

from __future__ import annotations

from dataclasses import replace

from meshslm.ids import NodeId
from meshslm.wire.consensus import Configuration, Seat


def without(configuration: Configuration, node: NodeId) -> Configuration:
    """The same without a node."""
    return Configuration(
        tuple(seat for seat in configuration.voters if seat.node != node),
        tuple(seat for seat in configuration.learners if seat.node != node),
    )


def with_learner(configuration: Configuration, node: NodeId) -> Configuration:
    """The same with a node that learns, once more if it did or decided before."""
    rest = without(configuration, node)
    return replace(rest, learners=(*rest.learners, Seat(node)))


def with_voter(configuration: Configuration, seat: Seat) -> Configuration:
    """The same with a node that decides."""
    rest = without(configuration, seat.node)
    return replace(rest, voters=(*rest.voters, seat))
