"""The worker's sandbox: what it denies, in a bare process and in a worker with a real model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.engine import landlock, sandbox, seccomp
from tests.adapters.engine_client import EngineClient, chat, serving

PROBE = Path(__file__).with_name("sandbox_probe.py")
HEADERS = {
    0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    1: Path("/usr/include/asm-generic/unistd.h"),
}
here = sandbox.possible()
confined = pytest.mark.skipif(bool(here.lacking), reason="; ".join(here.lacking))


def python(program: str, *arguments: str) -> str:
    """What a program writes; it runs in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- a real worker ------------------------------------------------------------------------------
@pytest.fixture
def lone_model(model_path: Path, tmp_path: Path) -> Path:
    """The model in a folder with something that is none of the worker's business."""
    model = tmp_path / "model.gguf"
    os.link(model_path, model)
    (tmp_path / "neighbour").write_text("secret")
    return model


def thread_states(pid: int | None) -> list[str]:
    """What the kernel says of each thread of a process."""
    return [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]


@pytest.mark.model
@confined
async def test_a_worker_can_compute_and_nothing_else(
    lone_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = EngineSpec("m", lone_model, context=512, slots=2, sandbox="required")
    command = (sys.executable, "-P", str(PROBE))
    async with serving(EngineProcess(spec, command=command)) as client:
        reply = await client.ask(chat("Hello", 5))
        assert reply.ended
        assert len(reply.tokens()) >= 1
        engine = client.engine
        assert isinstance(engine, EngineProcess)
        assert engine.ready is not None
        assert engine.ready.unconfined == ()
        states = thread_states(engine.pid)
    for state in states:
        assert re.search(r"^Seccomp:\t2$", state, re.MULTILINE), "a thread without the filter"
        assert re.search(r"^NoNewPrivs:\t1$", state, re.MULTILINE)
    told = dict(re.findall(r"worker \d+: ([a-z ]+): (\w+)$", caplog.text, re.MULTILINE))
    allowed = {name for name, outcome in told.items() if outcome == "done"}
    assert allowed == {"read model", "read stat", "signal self", "null"}
    assert len(told) == 19, "every attempt was made"
    assert set(told.values()) - {"done"} <= {"EACCES", "EPERM"}
    assert (lone_model.parent / "neighbour").read_text() == "secret"
    assert sorted(p.name for p in lone_model.parent.iterdir()) == ["model.gguf", "neighbour"]


@pytest.mark.model
async def test_a_worker_without_its_sandbox_says_so(
    model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = EngineSpec("m", model_path, context=512, slots=1, sandbox="off")
    async with serving(EngineProcess(spec)) as client:
        engine = client.engine
        assert isinstance(engine, EngineProcess)
        assert engine.ready is not None
        assert engine.ready.sandbox == ()
    assert "the sandbox is switched off" in caplog.text


@pytest.mark.model
async def test_a_model_that_takes_more_than_allowed_is_given_up(model_path: Path) -> None:
    spec = EngineSpec("m", model_path, context=2048, slots=16, private_mib=256)
    client = EngineClient(EngineProcess(spec))
    await client.engine.run(client.post)
    (lost,) = client.states
    assert "memory" in str(lost)


# --- the filter ---------------------------------------------------------------------------------
TRY_ALL = """
import ctypes, errno, os
from meshslm.engine import seccomp
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(seccomp.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
assert seccomp.install() == ""
column = ("x86_64", "aarch64").index(os.uname().machine)
tables = {**seccomp.DENIED, **seccomp.OWN_ONLY, "clone": seccomp.CLONE, "clone3": seccomp.CLONE3}
for name, numbers in tables.items():
    if numbers[column] is not None:
        arguments = (0, 0, 0, 0, 0, 0)
        result = libc.syscall(numbers[column], *arguments)
        print(name, result, errno.errorcode.get(ctypes.get_errno()))
limit = libc.syscall(seccomp.SELF_OR_ZERO["prlimit64"][column], os.getppid(), 0, 0, 0)
print("prlimit64", limit, errno.errorcode.get(ctypes.get_errno()))
"""


@confined
def test_every_listed_call_is_denied_whatever_its_arguments() -> None:
    lines = [line.split() for line in python(TRY_ALL).splitlines()]
    assert len(lines) > 80
    for name, result, error in lines:
        expected = "ENOSYS" if name == "clone3" else "EPERM"
        assert (result, error) == ("-1", expected), name


@pytest.mark.parametrize("column", [0, 1])
def test_the_numbers_are_the_kernel_s(column: int) -> None:
    header = HEADERS[column]
    if not header.exists():
        pytest.skip(f"no {header}")
    known = {
        name: int(number)
        for name, number in re.findall(
            r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text("utf-8")
        )
    }
    tables = {
        **seccomp.DENIED,
        **seccomp.OWN_ONLY,
        **seccomp.SELF_OR_ZERO,
        "clone": seccomp.CLONE,
        "clone3": seccomp.CLONE3,
        "ioctl": seccomp.IOCTL,
    }
    for name, numbers in tables.items():
        if name in known:
            assert numbers[column] == known[name], name
    unknown = [name for name, n in tables.items() if n[column] is not None and name not in known]
    assert set(unknown) <= {"fchmodat2"}, "newer than some headers"


@confined
def test_threads_can_be_made_and_inherit_the_filter() -> None:
    program = """
import ctypes, socket, threading
from meshslm.engine import seccomp
ctypes.CDLL(None).prctl(seccomp.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
assert seccomp.install() == ""
def attempt():
    try:
        socket.socket()
    except PermissionError:
        print("denied")
thread = threading.Thread(target=attempt)
thread.start()
thread.join()
"""
    assert python(program) == "denied"


# --- files --------------------------------------------------------------------------------------
IN_SANDBOX = """
import os, sys
from pathlib import Path
from meshslm.engine import sandbox
base = Path(sys.argv[1])
sandbox.enter(base / "model", readable=(str(base / "adapters"),), writable=(str(base / "state"),))
def attempt(name, deed):
    try:
        deed()
        print(name)
    except OSError:
        pass
attempt("read model", lambda: (base / "model").read_text())
attempt("read adapter", lambda: (base / "adapters" / "one").read_text())
attempt("write adapter", lambda: (base / "adapters" / "two").write_text("x"))
attempt("write state", lambda: (base / "state" / "new").write_text("x"))
attempt("rename state", lambda: (base / "state" / "new").rename(base / "state" / "old"))
attempt("remove state", lambda: (base / "state" / "old").unlink())
attempt("state folder", lambda: (base / "state" / "folder").mkdir())
attempt("pipe", lambda: os.mkfifo(base / "state" / "pipe"))
attempt("move out", lambda: (base / "state" / "folder").rename(base / "folder"))
attempt("read other", lambda: (base / "other").read_text())
attempt("write other", lambda: (base / "other").write_text("x"))
attempt("import", lambda: __import__("fractions"))
"""


@confined
def test_files_are_readable_and_writable_as_listed(tmp_path: Path) -> None:
    for name in ("adapters", "state"):
        (tmp_path / name).mkdir()
    for name in ("model", "other", "adapters/one"):
        (tmp_path / name).write_text(name)
    assert python(IN_SANDBOX, str(tmp_path)).splitlines() == [
        "read model",
        "read adapter",
        "write state",
        "rename state",
        "remove state",
        "state folder",
        "import",
    ]


LIMITS = """
import resource, sys
from pathlib import Path
from meshslm.engine import sandbox
sandbox.enter(Path("/nonexistent"), private_mib=100)
for name in ("CORE", "NOFILE", "FSIZE", "DATA"):
    print(resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0])
try:
    bytearray(200 * 2**20)
except MemoryError:
    print("no memory")
print(open("/proc/self/oom_score_adj").read().strip())
"""


def test_limits_are_set() -> None:
    assert python(LIMITS).splitlines() == [
        "0",
        str(sandbox.OPEN_FILES),
        "0",
        str(100 * 2**20),
        "no memory",
        str(sandbox.OOM_SCORE),
    ]


# --- a system that cannot -----------------------------------------------------------------------
LACKING = """
import sys, threading
from pathlib import Path
from meshslm.engine import landlock, sandbox, seccomp
from meshslm.errors import OurFault
what, required = sys.argv[1], sys.argv[2] == "required"
if what == "landlock":
    landlock.version = lambda: 0
elif what == "seccomp":
    seccomp.supported = lambda: "no table of system calls for z80"
else:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
try:
    print(*sandbox.enter(Path("/nonexistent"), required=required).lacking)
except OurFault as fault:
    print("fault:", fault)
"""


@confined
@pytest.mark.parametrize(
    ("what", "said"),
    [("landlock", "without Landlock"), ("seccomp", "for z80"), ("thread", "before the sandbox")],
)
def test_what_is_lacking_is_told_or_refused(what: str, said: str) -> None:
    told = python(LACKING, what, "auto")
    assert said in told
    assert not told.startswith("fault:")
    refused = python(LACKING, what, "required")
    assert refused.startswith("fault: a sandbox is required")
    assert said in refused


def test_what_is_possible_names_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def parts(entries: Sequence[str]) -> list[str]:
        return [re.split(r"[ (:]", entry)[0] for entry in entries]

    assert sorted(parts([*here.held, *here.lacking])) == ["files", "system"]
    monkeypatch.setattr(landlock, "version", lambda: 0)
    monkeypatch.setattr(seccomp, "supported", lambda: "no")
    bare = sandbox.possible()
    assert bare.held == ()
    assert parts(bare.lacking) == ["files", "system"]


def test_a_kernel_of_another_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Name:
        machine = "z80"

    monkeypatch.setattr(os, "uname", Name)
    assert "z80" in seccomp.supported()
    assert "z80" in seccomp.install()
