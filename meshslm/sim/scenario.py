"""What a simulation is made of: nodes, links, clients and faults, read from TOML.

Rules:
- Decoding is strict: an unknown key or a wrong type is an error that names the key.
- Times are seconds or milliseconds of virtual time, as the key's ending says.
- A scenario says what happens, never how the seed draws it: with another seed the same scenario
  hits other nodes.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from meshslm import limits, mesh_limits
from meshslm.core.strategies import AUTO, STRATEGIES
from meshslm.errors import OurFault
from meshslm.sim.corpus import DOMAINS
from meshslm.sim.fault_kinds import Churn, Cut, Fault, Kill, Partition, end_s
from meshslm.sim.hostile import Hostile
from meshslm.sim.tables import Count, NotNegative, Positive, Share, Table
from meshslm.sim.topology import Group
from meshslm.toml_text import Key, TomlText, key_text

MOST_NODES = 10_000
"""Beyond, one process runs out of memory (a guess: about 1 MiB a node in a full mesh)."""

MOST_SECONDS = 366 * 86_400.0
"""A year of virtual time: what is longer was not meant."""


class Network(Table, frozen=True):
    """Links between nodes."""

    latency_ms: NotNegative = 0.3
    """Median one-way latency of a pair; each pair draws its own."""
    latency_spread: NotNegative = 0.3
    """Deviation of the logarithm of a pair's latency: 0.7 doubles or halves it."""
    jitter_ms: NotNegative = 0.05
    """Mean of what each message takes longer than its pair's latency."""
    loss: Share = 0.0
    duplicate: Share = 0.0
    reorder: Share = 0.0
    """Share of messages that are lost, come twice, or are overtaken by later ones."""
    reorder_ms: NotNegative = 20.0
    """Longest time by which a message is overtaken, or by which a second copy comes later."""
    bandwidth_mbit: Positive = 1000.0
    """Of a node's uplink, shared by all its links."""


class Profile(Table, frozen=True):
    """A specialist, and the pretended engine below it."""

    name: str
    domains: tuple[str, ...]
    model: str = ""
    """Base model; empty: the profile's own. Profiles of one model on a node share its engine."""
    slots: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    context: Annotated[int, msgspec.Meta(ge=64)] = 2048
    prefill_tps: Positive = 2000.0
    decode_tps: Positive = 60.0
    """Tokens a second of one stream while its engine is otherwise idle."""
    load_s: NotNegative = 0.5
    """Time from the start of its engine until it takes runs."""
    memory_mib: NotNegative = 0
    """Memory that its engine takes while it is loaded."""


class Workload(Table, frozen=True):
    """What clients ask."""

    tasks_per_second: NotNegative = 5.0
    """Of the whole mesh, arriving at random (Poisson) on random living nodes."""
    curve: tuple[NotNegative, ...] = ()
    """How the rate changes over a day: factors at equal distances, joined by straight lines, the
    last with the first; empty: always 1."""
    day_s: Positive = 86_400.0
    """How long such a day is."""
    start_s: NotNegative = 6.0
    domain_share: Share = 0.3
    model_share: Share = 0.1
    """Shares of tasks that name a domain or a profile; the rest leaves it to the classifier."""
    tokens_short: tuple[Count, Count] = (4, 24)
    tokens_long: tuple[Count, Count] = (48, 160)
    long_share: Share = 0.2
    cancel_share: Share = 0.05
    """Share of clients that go away before they have their answer."""
    choices_share: Share = 0.05
    """Share of tasks that ask for two choices."""
    deadline_s: Positive = 60.0


class Checks(Table, frozen=True):
    """What the checkers demand beyond what holds always."""

    converge_s: Positive = 45.0
    """After the last change everybody must know everybody within so much time: the longest wait
    between two dials is 30 s, and jitter comes on top."""
    answered_share: Share = 0.0
    """Share of tasks that must be answered, of those that nobody cancelled and whose own node
    lived on."""
    right_domain_share: Share = 0.0
    """Share of classified tasks that must come to a specialist of their domain."""
    invariants_every: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Call `check()` of a node after every so many of its events; 0: after each in small meshes,
    after each 64th in meshes of more than 64 nodes."""


class NodeSettings(Table, frozen=True):
    """What every node is set to, as in its own configuration."""

    strategy: str = AUTO
    """By which nodes are chosen: `routing.strategy`."""
    hedge: Share = 0.0
    """Share of requests that may be asked of two nodes: `routing.hedge`."""
    queue: Annotated[int, msgspec.Meta(ge=0, le=65536)] = limits.QUEUE_PER_ENGINE
    """Requests that wait for one engine: `limits.queue`."""


class Sabotage(Table, frozen=True):
    """Breaks the simulated world between core and client, to prove that checkers notice."""

    drop_chunks: Share = 0.0
    repeat_chunks: Share = 0.0
    """Share of what cores hand to clients that is dropped or handed over twice."""


class Scenario(Table, frozen=True):
    """One simulation, but for its seed."""

    name: str
    summary: str = ""
    expect: Literal["pass", "fail"] = "pass"
    """What the tests expect of it. A run that fails fails, whatever stands here."""
    nodes: Annotated[int, msgspec.Meta(ge=1, le=MOST_NODES)] = 12
    seconds: Positive = 60.0
    boot_over_s: NotNegative = 2.0
    """Nodes start at random instants within so much time."""
    bootstrap_nodes: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3
    """How many of the nodes everybody is configured to dial."""
    quiet_s: NotNegative = 10.0
    """Before the end no tasks arrive for so long."""
    grace_s: NotNegative = 60.0
    """The run goes on for at most so long while tasks are open or views differ."""
    full_mesh: Annotated[int, msgspec.Meta(ge=1)] = mesh_limits.FULL_MESH
    """Other nodes up to which every two keep a link; a larger mesh organises itself."""
    profiles_per_node: Annotated[int, msgspec.Meta(ge=0, le=16)] = 1
    memory_mib: NotNegative = 0
    """Memory for the loaded models of one node; 0: without bound."""
    profiles: tuple[Profile, ...] = tuple(
        Profile(name=f"{domain}-small", domains=(domain,)) for domain in DOMAINS
    )
    clock_spread_s: NotNegative = 86_400.0
    """Clocks of nodes begin at random instants within so much time: no two are alike."""
    network: Network = Network()
    groups: tuple[Group, ...] = ()
    """Where nodes stand, if not all alike."""
    workload: Workload = Workload()
    faults: tuple[Fault, ...] = ()
    hostile: tuple[Hostile, ...] = ()
    """Nodes that mean ill."""
    settings: NodeSettings = NodeSettings()
    checks: Checks = Checks()
    sabotage: Sabotage = Sabotage()


class Misfit(OurFault):
    """Parts of a scenario do not fit together. `key` is where."""

    def __init__(self, key: Key, what: str) -> None:
        super().__init__(f"{key_text(key)}: {what}")
        self.key = key


def load_scenario(path: str | Path) -> Scenario:
    """Read a scenario. Raises `OurFault` that names the file, the line and the key."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise OurFault(f"cannot read scenario {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise OurFault(f"scenario {file} is not UTF-8 text: {error.reason}") from None
    source = TomlText(str(file), text)
    scenario = source.decode(Scenario)
    try:
        check_scenario(scenario)
    except Misfit as misfit:
        raise source.fault(misfit.key, str(misfit)) from None
    return scenario


def default_scenario(seconds: float | None = None) -> Scenario:
    """What `meshslm sim run` simulates where it is given no scenario; its faults fit the time."""
    lasts = seconds or 60.0
    return Scenario(
        name="default",
        summary="a local network with light loss, a kill, a power loss and a split",
        seconds=lasts,
        boot_over_s=lasts / 30,
        quiet_s=lasts / 6,
        network=Network(loss=0.01, duplicate=0.01, reorder=0.01),
        workload=Workload(start_s=lasts / 12),
        faults=(
            Kill(at_s=lasts * 0.17, back_after_s=lasts * 0.07),
            Kill(at_s=lasts * 0.3, silent=True, back_after_s=lasts * 0.12),
            Partition(at_s=lasts * 0.53, for_s=lasts * 0.13),
        ),
    )


def resized(
    scenario: Scenario, *, nodes: int | None = None, seconds: float | None = None
) -> Scenario:
    """The scenario with another size where one is given.

    Raises `Misfit` where its parts then do not fit together.
    """
    if nodes is not None:
        scenario = replace(scenario, nodes=nodes)
    if seconds is not None:
        scenario = replace(scenario, seconds=seconds)
    check_scenario(scenario)
    return scenario


def check_scenario(scenario: Scenario) -> None:
    """Raise `Misfit` where the parts of a scenario do not fit together."""
    if not 1 <= scenario.nodes <= MOST_NODES:
        raise Misfit(("nodes",), f"{scenario.nodes} nodes, from 1 to {MOST_NODES} are possible")
    if not 0 < scenario.seconds <= MOST_SECONDS:
        what = f"{scenario.seconds:g} seconds, above 0 and up to {MOST_SECONDS:.0f} are possible"
        raise Misfit(("seconds",), what)
    _check_profiles(scenario)
    _check_workload(scenario.workload)
    if scenario.settings.strategy not in STRATEGIES:
        what = f"unknown strategy {scenario.settings.strategy!r}, known are {', '.join(STRATEGIES)}"
        raise Misfit(("settings", "strategy"), what)
    for place, fault in enumerate(scenario.faults):
        _check_fault(scenario, fault, ("faults", place))
    _check_hostile(scenario)
    splits = sorted((f.at_s, f.at_s + f.for_s) for f in scenario.faults if isinstance(f, Partition))
    for (_, healed), (begun, _) in pairwise(splits):
        if begun <= healed:
            what = f"a partition begins at second {begun:g}, while another lasts until {healed:g}"
            raise Misfit(("faults",), f"{what}: give one of them more `shares` instead")


def _check_profiles(scenario: Scenario) -> None:
    names: dict[str, int] = {}
    engines: dict[str, Profile] = {}
    for place, profile in enumerate(scenario.profiles):
        where: Key = ("profiles", place)
        if names.setdefault(profile.name, place) != place:
            raise Misfit(where, f"profile {profile.name!r} is there twice")
        twin = engines.setdefault(profile.model or profile.name, profile)
        if _engine(twin) != _engine(profile):
            both = f"{profile.name!r} and {twin.name!r}"
            raise Misfit(where, f"{both} share a model, but not the figures of its engine")
        for domain in profile.domains:
            if domain not in DOMAINS:
                known = ", ".join(DOMAINS)
                raise Misfit(where, f"unknown domain {domain!r}, known are {known}")
    if scenario.workload.tasks_per_second > 0 and not any(p.domains for p in scenario.profiles):
        raise Misfit(("profiles",), "tasks need at least one profile with a domain")


def _engine(profile: Profile) -> tuple[float, ...]:
    speeds = (profile.prefill_tps, profile.decode_tps, profile.load_s)
    return (profile.slots, profile.context, profile.memory_mib, *speeds)


def _check_workload(workload: Workload) -> None:
    if workload.domain_share + workload.model_share > 1.0:
        raise Misfit(("workload",), "domain_share and model_share exceed 1 together")
    for key in ("tokens_short", "tokens_long"):
        low, high = getattr(workload, key)
        if low > high:
            raise Misfit(("workload", key), f"{low} is above {high}")
    if workload.curve and not any(workload.curve):
        raise Misfit(("workload", "curve"), "all of it is 0: set tasks_per_second to 0 instead")


def _check_hostile(scenario: Scenario) -> None:
    hostile = 0
    for place, plan in enumerate(scenario.hostile):
        hostile += len(plan.nodes) or plan.count
        for node in plan.nodes:
            if not 0 <= node < scenario.nodes:
                what = f"node {node} of {scenario.nodes}, counted from 0"
                raise Misfit(("hostile", place, "nodes"), what)
    if hostile and hostile >= scenario.nodes:
        raise Misfit(("hostile",), f"{hostile} of {scenario.nodes} nodes: one must be honest")


def _check_fault(scenario: Scenario, fault: Fault, where: Key) -> None:
    over = end_s(fault)
    if over > scenario.seconds:
        what = f"the fault lasts until second {over:g}, the run until {scenario.seconds:g}"
        raise Misfit(where, f"{what}: shorten the one or lengthen the other")
    if isinstance(fault, Churn | Partition):
        return
    lists = {"nodes": fault.nodes}
    if isinstance(fault, Cut):
        lists["from_nodes"] = fault.from_nodes
    for key, numbers in lists.items():
        for node in numbers:
            if not 0 <= node < scenario.nodes:
                raise Misfit((*where, key), f"node {node} of {scenario.nodes}, counted from 0")
