"""Another implementation of the protocol in the mesh: js-libp2p, from the example's folder.

What npm installs goes to a cache outside the checkout, once per lock file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshslm.cli.reach import readiness
from tests.e2e.conftest import START_SECONDS, until
from tests.e2e.test_e2e_private import Node

if TYPE_CHECKING:
    from tests.e2e.conftest import Start

pytestmark = pytest.mark.model

EXAMPLE = Path(__file__).parents[2] / "examples" / "js-client"
INSTALL_SECONDS = 180
ASK_SECONDS = 60
NO_NETWORK = ("ENOTFOUND", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EAI_AGAIN", "ENETUNREACH")

Ask = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def js_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with what it depends on."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    lock = (EXAMPLE / "package-lock.json").read_bytes()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meshslm-tests"
    modules = caches / f"js-client-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not modules.is_dir():
        install(modules)
    folder = tmp_path_factory.mktemp("js") / "client"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").symlink_to(modules / "node_modules")
    return folder


def install(modules: Path) -> None:
    """Run `npm ci` beside the cache, and put its result there in one step."""
    modules.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=modules.parent) as name:
        fresh = Path(name) / "client"
        fresh.mkdir()
        for file in ("package.json", "package-lock.json"):
            shutil.copy(EXAMPLE / file, fresh)
        words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(
            words, cwd=fresh, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
        if any(code in done.stderr for code in NO_NETWORK):
            pytest.skip(f"npm reaches no packages: {done.stderr[-300:]}")
        assert done.returncode == 0, done.stderr
        if not modules.exists():
            fresh.rename(modules)


@pytest.fixture
def ask(js_client: Path, tmp_path: Path) -> Ask:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        kept = ("--member", str(tmp_path / "js-member.key"))
        return subprocess.run(
            ["node", "ask.js", *words, *kept],
            cwd=js_client,
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, start_for_module: Start, models_dir: Path
) -> tuple[Node, Node]:
    """A private mesh: one that lets others in, and one that hosts a model."""
    folder, start = tmp_path_factory.mktemp("private"), start_for_module
    common = ("--models-dir", str(models_dir), "--threads", "1")
    one = Node(folder / "one", start, *common, "--no-profiles")
    two = Node(folder / "two", start, *common, "--profile", "code")
    one.mesh("create", "home")
    one.up()
    two.mesh("join", "--token-file", str(one.invite(folder / "two-token")))
    two.up()
    until(lambda: readiness(one.url)[0], START_SECONDS, "a member that hosts")
    return one, two


def test_js_libp2p_joins_by_token_lists_peers_and_streams_an_answer(
    pair: tuple[Node, Node], ask: Ask, tmp_path: Path
) -> None:
    one, _ = pair
    token = one.invite(tmp_path / "js-token", "--role", "gateway")
    words = ("--token-file", str(token), "--peers", "2", "--model", "code", "--tokens", "24")
    first = ask("Write a function that adds two numbers.", *words)
    assert first.returncode == 0, first.stderr
    listed = {line.split()[0]: line for line in first.stderr.splitlines() if "12D3" in line}
    assert listed["two"].endswith(": code")
    assert listed["one"].endswith(": hosts nothing")
    assert first.stdout.strip(), "an answer"
    pieces = [json.loads(line) for line in first.stderr.splitlines() if line.startswith('{"')]
    assert pieces[-1]["pieces"] > 2, "it came piece by piece"
    assert 0 < pieces[-1]["completionTokens"] <= 24
    seen = {member["name"]: member for member in one.mesh("members")}
    assert seen["js-client"]["rights"] == ["submit"]
    for node in pair:
        until(partial(left, node), what="it said goodbye")

    again = ask("Write a function that adds.", "--peers", "2", "--model", "code", "--tokens", "4")
    assert again.returncode == 0, "the certificate is kept: no token is needed"
    assert again.stdout.strip()


def left(node: Node) -> bool:
    return node.sees().get("js-client") != "alive"


@pytest.mark.long
def test_a_token_that_was_used_or_gives_too_little_is_told(
    pair: tuple[Node, Node], ask: Ask, tmp_path: Path
) -> None:
    one, _ = pair
    token = one.invite(tmp_path / "js-token", "--role", "specialist")
    refused = ask("Hello", "--token-file", str(token), "--peers", "2", "--model", "code")
    assert refused.returncode
    assert "forbidden" in refused.stderr, "its certificate does not let it submit"
    (tmp_path / "js-member.key").unlink()
    used = ask("Hello", "--token-file", str(token))
    assert used.returncode
    assert "invitation_used" in used.stderr
