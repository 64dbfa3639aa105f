"""`meshslm demo`: three real nodes on this machine, one question, and who answered it.

Why it exists: it is the first thing that a newcomer runs, and the whole product in half a minute.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from meshslm.cli.effective import config_option, load_effective, models_dir_option
from meshslm.cli.screen import json_option, print_json
from meshslm.cli.steps import Step, Steps

if TYPE_CHECKING:
    from meshslm.cli.answers import Answer
    from meshslm.cli.demo_nodes import RunningNodes

PROMPT: Final = "Write a short poem about a lighthouse in winter."
"""A writing task, asked of the node that hosts `code`."""
ANSWER_TOKENS: Final = 120
READY_SECONDS: Final = 180.0
"""Three cold starts side by side on two slow cores, with the model read from a disk."""
MEET_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.5
"""Between two looks at whether all nodes still run."""


@click.command()
@click.option("--prompt", default=PROMPT, show_default=True, help="What to ask node A.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the nodes keep their identities and logs; 'demo' in the data folder by default.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65533),
    help="API port of node A; B and C take the next two. Free ones by default.",
)
@click.option("--keep/--no-keep", default=True, help="Keep the mesh up after the answer.")
@config_option
@models_dir_option
@json_option
def demo(
    prompt: str, folder: Path | None, port: int | None, keep: bool, as_json: bool, **where: Any
) -> None:
    """Start three nodes on this machine and ask one of them.

    Node A hosts the profile 'code', B 'writing', C 'general'. The prompt goes to A; the mesh finds
    out who should answer. Ctrl-C stops all three.
    """
    from meshslm.cli.demo_nodes import RunningNodes, plan_nodes

    began = time.monotonic()
    settings = load_effective(**where).settings
    home = folder or Path(settings.node.data_dir) / "demo"
    with _terminated_is_interrupted(), RunningNodes() as nodes:
        with Steps(quiet=as_json) as steps:
            _have_models(settings, steps)
            with steps.step("start three nodes"):
                nodes.start(plan_nodes(settings, home, port))
            with steps.step("nodes ready") as step:
                nodes.wait_until("nodes ready", _ready(nodes, step), READY_SECONDS)
            with steps.step("nodes know each other") as step:
                nodes.wait_until("nodes know each other", _acquainted(nodes, step), MEET_SECONDS)
        up_ms = (time.monotonic() - began) * 1000
        answer = _ask(nodes, prompt, quiet=as_json)
        total_ms = (answer.first_text_at - began) * 1000
        if as_json:
            print_json(_summary(nodes, prompt, answer, up_ms, total_ms))
        else:
            _tell(nodes, answer, total_ms)
        if keep:
            _keep_up(nodes, quiet=as_json)
