"""What one peer and one IP address may take: buckets, callers, and real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_limits import Bucket, Callers, Intake, source_of
from meshslm.core.events import Lane, PeerConnected, PeerDisconnected
from meshslm.ids import NodeId
from tests.adapters.test_libp2p_hostile import (
    HURRIED,
    KEPT_STREAM,
    data,
    hung_up,
    intruder,
    still_serves,
    tcp,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.adapters.conftest import Node, StartLibp2p

    Connect = Callable[[Node, Node], Awaitable[None]]


# --- buckets ------------------------------------------------------------------------------------
def test_a_burst_passes_and_what_is_beyond_waits() -> None:
    bucket = Bucket(rate=10, burst=5)
    assert [bucket.take(1, 0.0) for _ in range(5)] == [0.0] * 5
    assert bucket.take(1, 0.0) == pytest.approx(0.1)
    assert bucket.take(2, 0.1) == pytest.approx(0.2)
    assert bucket.take(0, 100.0) == 0.0
    assert bucket.level(100.0) == 5


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 50)), max_size=60))
def test_who_waits_as_told_never_gets_more_than_burst_and_rate(
    steps: list[tuple[float, int]],
) -> None:
    bucket, now, taken = Bucket(rate=7, burst=20), 0.0, 0
    for pause, amount in steps:
        now += pause
        now += bucket.take(amount, now)
        taken += amount
        assert taken <= 20 + 7 * now + 1e-6


def test_tokens_of_a_hundred_streams_at_full_speed_never_wait() -> None:
    intake = Intake()
    for tenth in range(100):  # ten seconds of a hundred streams with a hundred tokens a second
        assert intake.take(1_000, 100_000, tenth / 10) == 0.0


# --- callers ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_what_counts_as_one_address(host: str, source: str) -> None:
    assert source_of(host) == source


async def test_the_address_that_takes_most_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKES", 4)
    callers = Callers()
    scopes = {}
    for name, source in (("alone", "far"), ("m1", "many"), ("m2", "many"), ("m3", "many")):
        assert callers.admit(source)
        scopes[name] = trio.CancelScope()
        callers.begin(source, scopes[name], 0.0, 5)
    for _ in range(2):
        callers.admit("new")
        callers.begin("new", trio.CancelScope(), 0.0, 5)
    assert [name for name, scope in scopes.items() if scope.cancel_called] == ["m1", "m2"]


def test_handshakes_from_one_address_take_their_turn_others_do_not_wait() -> None:
    callers = Callers()
    waits = []
    for _ in range(limits.HANDSHAKES_PER_SOURCE_BURST + limits.HANDSHAKES_PER_SOURCE_S):
        scope = trio.CancelScope()
        assert callers.admit("many")
        waits.append(callers.begin("many", scope, 0.0, 5))
        callers.end("many", scope)
        callers.leave("many")
    assert waits[: limits.HANDSHAKES_PER_SOURCE_BURST] == [0.0] * limits.HANDSHAKES_PER_SOURCE_BURST
    assert waits[-1] == pytest.approx(1.0)
    callers.admit("other")
    assert callers.begin("other", trio.CancelScope(), 0.0, 5) == 0.0


def test_after_a_flood_an_address_is_soon_as_good_as_new() -> None:
    callers = Callers()
    callers.admit("many")
    for _ in range(10_000):
        scope = trio.CancelScope()
        if callers.begin("many", scope, 0.0, 2) is not None:
            callers.end("many", scope)
    assert callers.begin("many", trio.CancelScope(), 0.0, 2) is None
    assert callers.begin("many", trio.CancelScope(), 2.1, 2) == pytest.approx(0.0, abs=0.05)


def test_one_address_never_takes_every_place() -> None:
    callers = Callers()
    assert all(callers.admit("many") for _ in range(limits.CONNECTIONS_PER_SOURCE))
    assert not callers.admit("many")
    assert callers.admit("other")
    callers.leave("many")
    assert callers.admit("many")


def test_addresses_are_forgotten_but_never_one_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SOURCES", 2)
    callers = Callers()
    callers.admit("used")
    for number in range(10):
        callers.admit(f"s{number}")
        callers.leave(f"s{number}")
    callers.leave("used")


def test_one_identity_has_a_few_connections_at_a_time() -> None:
    callers, peer = Callers(), NodeId("p")
    assert [callers.claim(peer) for _ in range(limits.CONNECTIONS_PER_PEER + 1)] == [
        *[True] * limits.CONNECTIONS_PER_PEER,
        False,
    ]
    callers.release(peer)
    assert callers.claim(peer)


# --- on real sockets ----------------------------------------------------------------------------
async def test_a_flood_of_connections_from_one_address(
    start_libp2p: StartLibp2p, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_PER_SOURCE", 8)
    node = await start_libp2p(timings=HURRIED)
    sockets = [await tcp(node) for _ in range(40)]
    for socket in sockets:
        await hung_up(socket)
        await socket.aclose()
    await still_serves(node, start_libp2p)


async def test_one_identity_with_many_connections(start_libp2p: StartLibp2p) -> None:
    node, key = await start_libp2p(), NodeKey.generate()
    async with trio.open_nursery() as nursery:
        held = 0

        async def hold() -> None:
            nonlocal held
            async with intruder(node, key):
                held += 1
                await trio.sleep_forever()

        for _ in range(limits.CONNECTIONS_PER_PEER):
            nursery.start_soon(hold)
        with trio.fail_after(10):
            while held < limits.CONNECTIONS_PER_PEER:
                await trio.testing.wait_all_tasks_blocked()
        async with intruder(node, key) as one_more:
            await one_more.cut_off()
        nursery.cancel_scope.cancel()
    await still_serves(node, start_libp2p)


async def test_a_peer_that_sends_too_much_waits_and_loses_nothing(
    start_libp2p: StartLibp2p, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PEER_MESSAGES_PER_S", 2_000)
    monkeypatch.setattr(limits, "PEER_MESSAGES_BURST", 100)
    one, two = await start_libp2p(), await start_libp2p()
    await connect(one, two)
    began = trio.current_time()
    for number in range(1_100):
        one.link.send(two.id, Lane.INTERACTIVE, b"%d" % number)
    for number in range(1_100):
        assert await two.receive() == b"%d" % number
    one.link.send(two.id, Lane.INTERACTIVE, b"after")
    assert await two.receive() == b"after"
    assert trio.current_time() - began >= 0.45  # 1,000 beyond the burst at 2,000 a second


@pytest.mark.parametrize(
    ("bytes_sent", "fault"),
    [(data(1, b"\xff" * 64), True), (b"\xee" * 100, True), (None, False)],
)
async def test_a_fault_is_told_apart_from_bad_luck(
    start_libp2p: StartLibp2p, bytes_sent: bytes | None, *, fault: bool
) -> None:
    node = await start_libp2p()
    async with intruder(node) as peer:
        await peer.send(KEPT_STREAM)
        await node.expect(PeerConnected)
        if bytes_sent is None:  # tampered with, by whomever
            await peer.socket.send_all(b"\x00\x20" + bytes(32))
        else:
            await peer.send(bytes_sent)
        assert (await node.expect(PeerDisconnected)).fault is fault
