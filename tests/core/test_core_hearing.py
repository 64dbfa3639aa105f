"""What is believed of those who tell of others' deaths in a large mesh, and how often."""

from __future__ import annotations

from meshslm import mesh_limits
from meshslm.chance import Chance
from meshslm.core.admission import Admission
from meshslm.core.conduct import Conduct
from meshslm.core.config import CoreConfig
from meshslm.core.directory import Directory
from meshslm.core.growth_events import SealStatement
from meshslm.core.hearing import Hearing
from meshslm.ids import NodeId, after
from meshslm.sim.sealing import sealed, signed_by
from meshslm.wire.codec import encode
from meshslm.wire.growth import Accusation, Facts, Record
from tests.core.test_core_growth import ME, NOW, Node

LIARS = ("liar-1", "liar-2")
OTHERS = tuple(f"n{number}" for number in range(200))


class Ear(Node):
    """A node of a large mesh that knows two liars and many others."""

    def __init__(self) -> None:
        super().__init__()
        config = CoreConfig(ME, "me", verify_node=signed_by)
        out, chance, nobody = self.out, Chance.from_int(3), Directory()
        admission = Admission(
            config, nobody, out, chance, drop=lambda *_: None, greet=lambda _: None
        )
        self.hearing = Hearing(
            config,
            self.members,
            None,  # type: ignore[arg-type]  # nobody speaks of this node here
            self.overlay,
            self.spread,
            admission,
            Conduct(out),
        )
        for place, name in enumerate((*LIARS, *OTHERS)):
            at = (f"/ip4/192.0.2.{place % 250}/tcp/1",)
            self.say(name, Record("default", NodeId(name), 1, 1, addresses=at))
        self.teller = self.linked("liar-1")

    def say(self, by: str, said: Record | Accusation, seconds: float = 0) -> None:
        statement = sealed(NodeId(by), SealStatement(encode(said))).signed
        teller = self.linked(by)
        self.hearing.on_facts(teller, Facts((statement,)), after(NOW, 1000 * seconds))
        del self.directory.peers[teller.node]
        self.hearing.check()

    def accuse(self, by: str, node: str, seconds: float = 0) -> None:
        self.say(by, Accusation(NodeId(node), 1, 0, NodeId(by)), seconds)

    @property
    def gone(self) -> int:
        return len(self.members.lost)


def test_two_liars_have_a_bounded_number_of_members_taken_for_gone() -> None:
    ear = Ear()
    for node in OTHERS:
        for liar in LIARS:
            ear.accuse(liar, node)
    assert ear.gone == mesh_limits.ACCUSATIONS
    minute = 60
    for node in OTHERS:
        for liar in LIARS:
            ear.accuse(liar, node, minute)
    assert ear.gone == mesh_limits.ACCUSATIONS + minute * mesh_limits.ACCUSATIONS_PER_S


def test_nobody_accuses_itself_to_help_a_liar() -> None:
    ear = Ear()
    ear.accuse("n1", "n1")
    ear.accuse("liar-1", "n1")
    assert ear.gone == 0
    ear.accuse("liar-2", "n1")
    assert ear.gone == 1
