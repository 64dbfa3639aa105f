"""Profiles with adapters, and what models can be asked for."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from meshslm import limits
from meshslm.adapters.scripted_port import ScriptedPort
from meshslm.daemon.defaults import fill
from meshslm.daemon.hosting import Room
from meshslm.errors import OurFault
from meshslm.profiles import Profile, parse_profile
from meshslm.wire.messages import TaskRequest
from tests.daemon.box import Box

PLAIN = Profile(name="plain", model="m")
POLITE = Profile(name="polite", model="m", adapter="manners")


def test_a_profile_names_the_adapter_unless_the_request_does() -> None:
    assert fill(TaskRequest("x", prompt="p"), POLITE).adapter == "manners"
    assert fill(TaskRequest("x", prompt="p", adapter="mine"), POLITE).adapter == "mine"
    assert fill(TaskRequest("x", prompt="p"), PLAIN).adapter == ""


@pytest.mark.parametrize("name", ["UPPER", "../up", "a b", "x" * 65, "-"])
def test_an_adapter_has_a_name_of_the_store(name: str) -> None:
    with pytest.raises(OurFault, match="adapter"):
        parse_profile("p.toml", f'name = "p"\nmodel = "m"\nadapter = "{name}"\n')


async def announced(adapters: dict[str, str]) -> Box[ScriptedPort]:
    room = Room(0, 0, lambda: 0)
    box = Box(ScriptedPort, (PLAIN, POLITE), {"m": 1}, room, adapters=adapters)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run)
        await box.until(m="ready")
        nursery.cancel_scope.cancel()
    return box


async def test_an_adapter_is_part_of_what_is_announced(
    autojump_clock: trio.testing.MockClock,
) -> None:
    box = await announced({"manners": "e" * 64})
    digests = {s.profile: s.digest for s in box.core.specialists()}
    assert digests == {"plain": "d", "polite": "d+" + "e" * 32}
    assert not box.hosting.unready()


async def test_a_profile_whose_adapter_is_missing_is_told_of_and_left_out(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    box = await announced({})
    assert [s.profile for s in box.core.specialists()] == ["plain"]
    assert "there is no adapter 'manners' for m on this node" in caplog.text
    assert any("profile polite" in why for why in box.hosting.unready())


async def test_what_a_model_can_do_is_announced(autojump_clock: trio.testing.MockClock) -> None:
    box = await announced({})
    (specialist,) = box.core.specialists()
    assert specialist.operations == ("generate", "template")


async def test_adapters_that_come_and_go_are_announced(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    adapters: dict[str, str] = {}
    box = Box(ScriptedPort, (PLAIN, POLITE), {"m": 1}, Room(0, 0, lambda: 0), adapters=adapters)

    def told() -> dict[str, tuple[str, ...]]:
        return {s.profile: s.adapters for s in box.core.specialists()}

    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run)
        await box.until(m="ready")
        assert told() == {"plain": ()}
        adapters |= {"manners": "e" * 64, "brief": "f" * 64}
        await trio.sleep(2)
        both = ("brief", "manners")
        assert told() == {"plain": both, "polite": both}
        assert box.hosting.unready() == ()
        del adapters["manners"]
        await trio.sleep(20)
        assert told() == {"plain": ("brief",)}
        assert box.states() == {"m": "ready"}
        adapters.update({f"a{number:03}": "a" for number in range(200)})
        await trio.sleep(2)
        assert len(told()["plain"]) == limits.ADAPTERS_ANNOUNCED
        nursery.cancel_scope.cancel()
    assert caplog.text.count("there is no adapter 'manners'") == 2, "once for each time"
