"""From profiles to engines: what is announced, loaded, refused and unloaded."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from meshslm.adapters.scripted_port import ScriptedPort
from meshslm.core.events import (
    EngineLost,
    EngineUnloaded,
    Event,
    HostingChanged,
)
from meshslm.core.residency import Keep
from meshslm.daemon.engine_room import EngineRoom
from meshslm.daemon.hosting import Room
from meshslm.ports import Post
from meshslm.profiles import Profile
from meshslm.wire.messages import Hardware
from tests.daemon.box import Box


def scripted(
    profiles: tuple[Profile, ...],
    needs: dict[str, float],
    room: Room,
    missing: dict[str, str] | None = None,
    unknown: dict[str, str] | None = None,
) -> Box[ScriptedPort]:
    """A node with scripted engines."""
    return Box(
        lambda model: ScriptedPort(model, load_ms=500),
        profiles,
        needs,
        room,
        missing or {},
        unknown or {},
    )


def profile(model: str, load: str = "start") -> Profile:
    return Profile(name=f"p-{model}", model=model, load=load)  # type: ignore[arg-type]  # text is the name


def room(budget_mib: int = 100, idle_ms: int = 0, available_mib: int = 1000) -> Room:
    return Room(budget_mib, idle_ms, lambda: available_mib)


async def test_models_change_places_as_they_are_asked_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    box = scripted((profile("a"), profile("b")), {"a": 60, "b": 60}, room())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run)
        await box.until(a="ready", b="absent")
        for model in ("b", "a", "b", "b"):
            assert (await box.ask(model)).failed is None
            assert box.states()[model] == "ready"
            assert [e.ready for e in box.engines.values()].count(True) == 1
        nursery.cancel_scope.cancel()


async def test_the_size_that_is_told_is_that_of_the_weights(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Room for conversations makes no model larger: others compare models by it."""
    box = scripted((profile("a"),), {"a": 100}, room())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run)
        await box.until(a="ready")
        assert [s.size_mib for s in box.core.specialists()] == [34]
        nursery.cancel_scope.cancel()


async def test_an_idle_model_leaves(autojump_clock: trio.testing.MockClock) -> None:
    box = scripted((profile("a"), profile("b", "always")), {"a": 10, "b": 10}, room(idle_ms=60_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run)
        await box.until(a="ready", b="ready")
        began = trio.current_time()
        await box.until(a="absent", b="ready")
        assert trio.current_time() - began == pytest.approx(60, abs=1)
        assert (await box.ask("a")).failed is None
        nursery.cancel_scope.cancel()


async def test_a_load_that_the_machine_has_no_memory_for_is_refused_with_numbers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    box = scripted((profile("a"),), {"a": 80.2}, room(available_mib=50))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run)
        await box.until(a="failed")
        assert not box.engines["a"].ready
        assert "80 MiB" in box.models()["a"].reason
        assert "50 MiB" in box.models()["a"].reason
        (why,) = box.core.unready()
        assert "80 MiB" in why
        nursery.cancel_scope.cancel()


async def test_a_model_that_cannot_be_had_leaves_the_others(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    box = scripted(
        (profile("a"), profile("b")),
        {"a": 60, "b": 60},
        room(),
        missing={"a": "nobody has it"},
        unknown={"b": "a strange architecture"},
    )
    assert box.hosting.unready() == ("a is being brought", "b is being brought")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run)
        await box.until(b="ready")
        assert box.hosting.unready() == ("a cannot be hosted: nobody has it",)
        assert [s.profile for s in box.core.specialists()] == ["p-b"]
        assert "a strange architecture" in caplog.text
        nursery.cancel_scope.cancel()


async def test_the_most_eager_profile_of_a_model_decides(
    autojump_clock: trio.testing.MockClock,
) -> None:
    loads = {"d": ("demand", "demand"), "s": ("demand", "start"), "k": ("start", "always")}
    profiles = tuple(
        Profile(name=f"{model}{load}{n}", model=model, load=load)  # type: ignore[arg-type]  # text is the name
        for model, asked in loads.items()
        for n, load in enumerate(asked)
    )
    box = scripted(profiles, dict.fromkeys(loads, 10.0), room())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run)
        await box.until(d="absent", s="ready", k="ready")
        assert [view.pinned for view in box.models().values()] == [False, False, True]
        nursery.cancel_scope.cancel()


# --- the engine room ----------------------------------------------------------------------------
class Stubborn:
    """An engine that takes its time to leave, and counts its lives."""

    model = "a"

    def __init__(self) -> None:
        self.lives = 0
        self.most = 0
        self.gives_up = False

    def start_run(self, *_: object, **_more: object) -> None: ...

    def stop_run(self, *_: object) -> None: ...

    async def run(self, post: Post) -> None:
        self.lives += 1
        self.most = max(self.most, self.lives)
        try:
            if self.gives_up:
                await post(EngineLost("a", "no", final=True))
                return
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self.lives -= 1


@pytest.mark.parametrize("gives_up", [False, True])
async def test_one_life_at_a_time(
    autojump_clock: trio.testing.MockClock, *, gives_up: bool
) -> None:
    engine = Stubborn()
    engine.gives_up = gives_up
    posted: list[Event] = []

    async def post(*events: Event) -> None:
        posted.extend(events)

    engines = EngineRoom({"a": engine}, post, lambda _: "")
    async with trio.open_nursery() as nursery:
        started = trio.Event()
        nursery.start_soon(engines.run, started.set)
        await started.wait()
        for _ in range(3):
            engines.load("a")
            await trio.sleep(0.5)
            engines.unload("a")
            if not gives_up:
                assert EngineUnloaded("a") not in posted, "it is still leaving"
            await trio.sleep(1.5)
            assert posted.pop() == EngineUnloaded("a"), "asked for, so always answered"
        engines.load("a")
        engines.load("a")
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert engine.most == 1


def test_keeps_are_spelled_alike() -> None:
    assert {keep.value for keep in Keep} == {"demand", "start", "always"}
    for keep in Keep:
        assert profile("m", keep.value).load == keep.value
    assert HostingChanged((), Hardware()).residency.budget_mib == 0
