"""Members of a private mesh that lie, repeat and act outside their certificates, at real daemons.

Strangers are tried in `test_e2e_hostile`. Here the door is open to who means ill: it has a
certificate, and the daemons go on trusting each other and answering their own users all the same.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from meshslm.adapters.admission_desk import AdmissionDesk, enrol
from meshslm.adapters.keyring import NodeKey, load_or_create
from meshslm.adapters.mesh_folder import MeshFolder
from meshslm.adapters.tokens import from_text, narrowed, to_text
from meshslm.cli.demo_nodes import free_ports
from meshslm.client import Client
from meshslm.ids import NodeId, TaskId
from meshslm.wire.admission import Signed
from meshslm.wire.codec import encode
from meshslm.wire.detection import Gossip, News
from meshslm.wire.growth import Facts, Record
from meshslm.wire.messages import (
    Capability,
    ChatMessage,
    DomainCard,
    Hello,
    PeerAddress,
    Peers,
    Presence,
    Specialist,
    TaskRequest,
    TaskSubmit,
)
from tests.e2e.conftest import START_SECONDS, Program, Start, get, is_ready, until
from tests.e2e.test_e2e_hostile import ANSWER_SECONDS, Attack, Victim, framed, under

if TYPE_CHECKING:
    from tests.adapters.test_libp2p_hostile import Intruder

pytestmark = [pytest.mark.model, pytest.mark.long]

Lie = Callable[["Town", Attack], Awaitable[None]]

LIARS = ("replayer", "forger", "accuser", "eclipser")
PAUSE_S = 0.02
"""Between two lies: slow enough not to be banned as a flood before they are told."""


@dataclass
class Liar:
    """A member that means ill."""

    key: NodeKey
    hello: bytes

    async def call(self, attack: Attack) -> Intruder:
        """A link to the victim, as a member."""
        intruder = await attack.intruder(self.key)
        await intruder.send(self.hello)
        return intruder


class Town:
    """A private mesh: a victim that hosts a model, a friend, one that comes later, and liars."""

    def __init__(self, folder: Path, start: Start, models_dir: Path) -> None:
        self.folder = folder
        self._start = start
        self._ports = {name: free_ports(2) for name in ("victim", "friend", "late", "other")}
        self.run("victim", "mesh", "create", "town")
        data = folder / "victim"
        desk = AdmissionDesk(MeshFolder(data), load_or_create(data), time.time)
        for name in ("friend", "late"):
            enrol(desk, folder / name, name)
        for name in LIARS:
            enrol(desk, folder / name, name)
        profile = ("--models-dir", str(models_dir), "--profile", "general", "--threads", "1")
        program = self.up("victim", *profile)
        process = program.process
        until(lambda: is_ready(self.url("victim")) or process.poll() is not None, START_SECONDS)
        assert process.poll() is None, program.said
        self.victim = Victim(program, self.url("victim"), self._ports["victim"][0])
        self.friend = self.up("friend", "--no-profiles")
        until(lambda: self.state("friend") == "alive", START_SECONDS, "a friend")
        self.friend_id = NodeId(self.peers()["friend"]["node"])
        (boot,) = re.findall(r"boot: node friend .* boot (\d+)", self.friend.said)
        self.friend_boot = int(boot)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name][1]}"

    def run(self, name: str, *words: str, code: int = 0) -> str:
        """A command on a node's data folder; what it said."""
        program = self._start(*words, "--data-dir", str(self.folder / name))
        assert program.ended() == code, program.said
        return program.said

    def up(self, name: str, *words: str) -> Program:
        link, port = self._ports[name]
        to = f"/ip4/127.0.0.1/tcp/{self._ports['victim'][0]}"
        return self._start(
            *("up", "--name", name, "--data-dir", str(self.folder / name), "--no-mdns"),
            *("--listen", f"/ip4/127.0.0.1/tcp/{link}", "--gateway-port", str(port)),
            *(*words, *(() if name == "victim" else ("--bootstrap", to))),
        )

    def liar(self, name: str) -> Liar:
        """Who has the key and the certificate in a folder."""
        member = MeshFolder(self.folder / name).member()
        assert member is not None
        hello = Hello(1, 1, "meshslm", 1, name, credential=member.credential)
        return Liar(load_or_create(self.folder / name), framed(hello))

    def join(self, name: str, token: Path, *words: str, code: int = 0) -> str:
        return self.run(name, "mesh", "join", "--token-file", str(token), *words, code=code)

    def peers(self) -> dict[str, Any]:
        """By name, as the victim sees them."""
        return {peer["name"]: peer for peer in get(self.url("victim"), "/mesh/peers")["peers"]}

    def state(self, name: str) -> str:
        return str(self.peers().get(name, {}).get("state", ""))

    def token(self, name: str, *words: str) -> Path:
        """A token that a node made."""
        path = self.folder / f"{name}-{len(list(self.folder.glob('*.token')))}.token"
        address = f"/ip4/127.0.0.1/tcp/{self._ports[name][0]}"
        self.run(name, "mesh", "invite", "--address", address, "--output", str(path), *words)
        return path


@pytest.fixture(scope="module")
def town(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, start_for_module: Start
) -> Town:
    return Town(tmp_path_factory.mktemp("town"), start_for_module, models_dir)


# --- certificates and tokens --------------------------------------------------------------------
def test_who_acts_outside_its_certificate_is_refused_and_not_seen(town: Town) -> None:
    roles = ("--role", "specialist", "--domains", "code")
    town.join("guest", town.token("victim", *roles))
    liar = town.liar("guest")
    known = ("m", "digest", "q8_0", 2048, 1)
    hosts = tuple(Specialist(d, *known, (DomainCard(d),)) for d in ("code", "law", "general"))
    request = TaskRequest("general", (ChatMessage("user", "hello"),), max_tokens=4)
    task = TaskSubmit(TaskId("t"), 0, "general", request, 9_000)

    async def act() -> None:
        with Attack(town.victim.port, Counter()) as attack:
            intruder = await liar.call(attack)
            await intruder.receive_until(b"victim")
            await intruder.send(framed(Capability(1, 1, hosts), Presence(1, 1, capability=1)))
            await intruder.send(framed(task))
            await intruder.receive_until(b"forbidden")
            said = (await trio.to_thread.run_sync(town.peers))["guest"]
            assert [s["profile"] for s in said["specialists"]] == ["code"]

    trio.run(act)
    assert town.victim.answers() < ANSWER_SECONDS


def used(town: Town) -> Path:
    token = town.token("victim")
    town.join("first", token)
    return token


def expired(town: Town) -> Path:
    whole = town.token("victim")
    less = narrowed(from_text(whole.read_text()), expires_unix_s=time.time() + 0.5)
    time.sleep(0.6)  # by the wall clock of both: a token has no other end
    whole.write_text(to_text(less))
    return whole


def foreign(town: Town) -> Path:
    town.run("other", "mesh", "create", "elsewhere")
    return town.token("other")


def widened(town: Town) -> Path:
    """It asks for more than the token gives."""
    path = town.token("victim", "--role", "gateway")
    path.write_text(to_text(replace(from_text(path.read_text()), rights=("submit", "admit"))))
    return path


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (used, "invitation_used"),
        (expired, "invitation_expired"),
        (foreign, "invitation_invalid"),
        (widened, "widened"),
    ],
)
def test_a_token_that_does_not_hold_lets_nobody_in(
    town: Town, made: Callable[[Town], Path], code: str
) -> None:
    token = made(town)
    at = f"/ip4/127.0.0.1/tcp/{town.victim.port}/p2p/{town.victim.status().node}"
    said = town.join(f"by-{made.__name__}", token, "--at", at, code=1)
    assert code in said
    assert town.victim.answers() < ANSWER_SECONDS


# --- lies ---------------------------------------------------------------------------------------
def lies(of: str) -> Callable[[Callable[[Town], Iterator[bytes]]], Lie]:
    """A liar says hello and then one thing after the other, and reads what it is told."""

    def made(told: Callable[[Town], Iterator[bytes]]) -> Lie:
        async def step(town: Town, attack: Attack) -> None:
            intruder = await town.liar(of).call(attack)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attack.drain, intruder)
                for lie in told(town):
                    await intruder.send(lie)
                    attack.done["lies"] += 1
                    await trio.sleep(PAUSE_S)
                nursery.cancel_scope.cancel()

        return step

    return made


@lies("replayer")
def replays(_town: Town) -> Iterator[bytes]:
    """The same presence for ever, and an older one."""
    while True:
        yield framed(Presence(1, 9))
        yield framed(Presence(1, 2))


@lies("forger")
def forgeries(town: Town) -> Iterator[bytes]:
    """A record of the friend that it has not signed."""
    record = Record("meshslm", town.friend_id, 2**40, 1, left=True)
    yield framed(Facts((Signed(encode(record), bytes(64)),)))
    while True:
        yield framed(Presence(1, 1))


@lies("accuser")
def accusations(town: Town) -> Iterator[bytes]:
    """The friend is dead, say I and many others."""
    friend, boot = town.friend_id, town.friend_boot
    for round_of_lies in count():
        said = (NodeId(f"nobody-{round_of_lies}-{n}") for n in range(4))
        yield framed(Gossip(tuple(News(friend, "dead", boot, 0, by) for by in said)))


@lies("eclipser")
def made_up_nodes(_town: Town) -> Iterator[bytes]:
    """Members that there are not, at addresses where nobody is."""
    while True:
        ids = (NodeKey.generate().node_id for _ in range(8))
        at = (PeerAddress(node, (f"/ip4/127.0.0.1/tcp/9/p2p/{node}",)) for node in ids)
        yield framed(Peers(tuple(at)))


@pytest.mark.parametrize(
    ("lie", "least"),
    [
        (replays, {"lies": 200}),
        (forgeries, {"lies": 1, "hung up": 1}),
        (accusations, {"lies": 200}),
        (made_up_nodes, {"lies": 100}),
    ],
    ids=["replays", "forgeries", "accusations", "made-up nodes"],
)
def test_lies_part_no_friends_and_keep_no_user_waiting(
    town: Town, lie: Lie, least: dict[str, int]
) -> None:
    with under(partial(lie, town), town.victim.port) as done:
        until(lambda: all(done[what] >= times for what, times in least.items()), 60, "the lies")
        for _ in range(3):
            assert town.victim.answers() < ANSWER_SECONDS
            assert town.state("friend") == "alive"
    assert town.victim.program.process.poll() is None
    assert f"peer.gone {town.friend_id}" not in town.victim.program.said


def test_a_newcomer_finds_its_way_through_a_crowd_of_made_up_nodes(town: Town) -> None:
    with under(partial(made_up_nodes, town), town.victim.port) as done:
        until(lambda: done["lies"] >= 50, 60, "the crowd")
        town.up("late", "--no-profiles")
        until(lambda: town.state("late") == "alive", START_SECONDS, "the newcomer")
        with Client(town.url("late")) as client:
            assert client.ask("Name a colour.", max_tokens=4).node_name == "victim"
            assert {"victim", "friend"} <= {p.name for p in client.peers() if p.state == "alive"}
