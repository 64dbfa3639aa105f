"""`make bench`: measure, print it, and write it to `docs/performance.md`, section by section."""

from __future__ import annotations

import argparse
import platform
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import (
    bench_accuracy,
    bench_bulk,
    bench_cascade,
    bench_consensus,
    bench_daemon,
    bench_decision,
    bench_drafts,
    bench_engine,
    bench_failover,
    bench_forms,
    bench_growth,
    bench_hop,
    bench_lifecycle,
    bench_mesh,
    bench_mesh_real,
    bench_neighbour,
    bench_operations,
    bench_placement,
    bench_reading,
    bench_run,
    bench_serving,
    bench_sim,
    bench_state,
)
from bench.nodes import running_mesh
from bench.table import Row, markdown
from bench.turns import say
from meshslm.adapters.hardware import cpu_flags, detect

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def in_mesh() -> list[Row]:
    """What needs a running mesh of three."""
    with running_mesh() as mesh:
        rows = bench_run.shared_weights(mesh)
        return [*bench_hop.measure(mesh), *rows]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    title: str
    about: str
    minutes: float
    """That it takes on two cores, about."""
    measure: Callable[[], list[Row]]


SECTIONS: dict[str, Section] = {
    "state": Section(
        "Shared documents",
        "Two cores with real signatures and a journal on this disk; the rest simulated. Bytes are "
        "those of messages, without the link's own.",
        5,
        bench_state.measure,
    ),
    "engine": Section(
        "The engine",
        "Requests through a worker process, in turn with a bare loop over the same calls and with "
        "llama.cpp's own server, which waits at barriers as it likes; no prompt asked twice, "
        "no tokens guessed.",
        5,
        bench_engine.measure,
    ),
    "serving": Section(
        "What clients feel",
        "One engine with 8 slots; pairs measured one after the other.",
        3,
        bench_serving.measure,
    ),
    "drafts": Section(
        "Draft models",
        "One request at a time, with a draft model and without, in turn.",
        4,
        bench_drafts.measure,
    ),
    "forms": Section(
        "Answers of a given form",
        "The same worker with a schema, or with tools at hand, and without, in turn.",
        4,
        bench_forms.measure,
    ),
    "operations": Section(
        "Vectors and adapters",
        "The same engine with one kind of request and another, in turn.",
        1,
        bench_operations.measure,
    ),
    "neighbour": Section(
        "A busy neighbour",
        "Threads that follow free cores, in turn with every fixed number of threads.",
        5,
        bench_neighbour.measure,
    ),
    "lifecycle": Section(
        "Loading and replacing",
        "A worker of the 135M model, its file in the page cache.",
        0.5,
        bench_lifecycle.measure,
    ),
    "hop": Section(
        "One hop",
        "The same kind of request at the node that serves it and at its neighbour, in turn; pairs "
        "compared, and where their median lies with 95 % confidence. Both nodes, their clients and "
        "the engine are on the same cores.",
        7,
        in_mesh,
    ),
    "daemon": Section("A daemon", "Weight and start-up.", 0.5, bench_daemon.measure),
    "run": Section(
        "The main job",
        "Three daemons as three processes, caches warm.",
        0.5,
        bench_run.measure,
    ),
    "routing-failover": Section(
        "Failing over",
        "Three daemons as three processes; the one that serves a stream is killed, stopped or cut "
        "off at a random moment of it, and the text compared with the undisturbed run's.",
        25,
        bench_failover.measure,
    ),
    "routing-failover-forms": Section(
        "Failing over in answers of a form",
        "The same for answers that must fit a JSON schema or call a tool: who goes on builds the "
        "state of the grammar from what was delivered.",
        50,
        bench_failover.measure_forms,
    ),
    "routing-decision": Section(
        "A choice",
        "Who is to answer, among nodes of several domains whose loads go on changing. With the "
        "embedding: from a request's arrival at a node, its model in a process of its own.",
        1.5,
        lambda: [*bench_decision.measure(), *bench_reading.measure()],
    ),
    "routing-placement": Section(
        "Placement",
        "100 simulated nodes: servers, desktops and boards, 32 requests a second. With partial "
        "views, as meshes of so many nodes have them by default: three seeds as one sample; with a "
        "link between every two: the first seed. Times are virtual.",
        8,
        bench_placement.measure,
    ),
    "routing-accuracy": Section(
        "Recognising requests",
        "Requests that were written for this; `docs/routing-accuracy.md` "
        "has them by kind and domain.",
        2,
        bench_accuracy.measure,
    ),
    "routing-cascade": Section(
        "Answers in steps",
        "Two daemons, and two files of one small model in the place of a small and a large one: "
        "weights of four bits and of sixteen. Requests whose answers can be checked; one at a "
        "time, one thread each.",
        4,
        bench_cascade.measure,
    ),
    "mesh": Section(
        "The mesh",
        "Production cores in the simulator, without requests. Times are virtual.",
        7,
        bench_mesh.measure,
    ),
    "growth": Section(
        "A large mesh",
        "Production cores in the simulator, without requests. Times are virtual.",
        8,
        bench_growth.measure,
    ),
    "mesh-real": Section(
        "The mesh, as processes",
        "Daemons without models as processes on one machine.",
        6,
        bench_mesh_real.measure,
    ),
    "bulk": Section(
        "Beside bulk",
        "Two links as two processes: 3.2 MiB of bulk always wait at the sender, a control message "
        "goes to and fro every 50 ms, a token leaves every 20 ms. The slow wires are between TUN "
        "devices, with a queue of 100 ms.",
        4,
        bench_bulk.measure,
    ),
    "consensus": Section(
        "Decisions",
        "Daemons without models as processes of one machine, which share its disk.",
        1.5,
        bench_consensus.measure,
    ),
    "sim": Section(
        "The simulator",
        "Production cores on one heap, one process.",
        6,
        bench_sim.measure,
    ),
}


def machine() -> str:
    """What it was measured on."""
    hardware = detect()
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    features = ", ".join(hardware.features) or "no features told"
    flags = " under a hypervisor" if "hypervisor" in cpu_flags() else ""
    return (
        f"{model}{flags}, {hardware.cores} cores, {hardware.memory_mib / 1024:.0f} GiB, "
        f"{features}; Python {platform.python_version()}"
    )


def sections_of(page: str) -> dict[str, str]:
    """The sections of the page as it stands, by title."""
    _, *parts = page.split("\n## ")
    return {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts}


def write(measured: dict[str, str]) -> None:
    """Put measured sections into the page; those that were not measured stay as they are."""
    known = sections_of(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    known.update(measured)
    head = (
        "# Performance\n\nWritten by `make bench`, a section at a time. Machines differ and these "
        "are shared: trust the ratios."
    )
    titles = [section.title for section in SECTIONS.values() if section.title in known]
    parts = [head, *(f"## {title}\n\n{known[title]}" for title in titles)]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def main() -> int:
    """Measure the sections that were asked for, or all."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="default: all")
    parser.add_argument(
        "--rounds",
        type=int,
        default=bench_failover.ROUNDS,
        help="streams disturbed by each kind of fault; only in 'routing-failover' and '…-forms'",
    )
    asked = parser.parse_args()
    bench_failover.rounds = asked.rounds
    chosen = asked.sections or list(SECTIONS)
    missed: list[Row] = []
    broken: list[str] = []
    for name in chosen:
        section = SECTIONS[name]
        print(f"\n{section.title}: {section.about}", flush=True)
        say(f"this takes about {section.minutes:g} min on two cores")
        try:
            rows = section.measure()
        except (Exception, SystemExit):  # noqa: BLE001 - the other sections are worth their time
            traceback.print_exc()
            broken.append(section.title)
            continue
        table = markdown(rows)
        print(table, flush=True)
        missed += [row for row in rows if row.reached is False]
        write({section.title: f"{section.about}\n\nMeasured on: {machine()}.\n\n{table}"})
    for row in missed:
        print(
            f"not reached: {row.what}: {row.value}, {row.against}, {row.ratio} {row.target}",
            file=sys.stderr,
        )
    for title in broken:
        print(f"not measured, as it failed: {title}", file=sys.stderr)
    return 1 if missed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
