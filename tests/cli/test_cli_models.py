"""`meshslm models`: from a file into the store and out of it again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshslm.cli.model_progress import (
    ModelReport,
    ProgressLines,
    parameters_text,
    progress_text,
)
from meshslm.cli.steps import Steps
from meshslm.models.progress import Progress, Stage
from tests.cli.conftest import documented_keys

if TYPE_CHECKING:
    from tests.cli.conftest import Outcome, Run


def pull(run: Run, file: Path) -> Outcome:
    return run("models", "pull", f"file:{file}", "--as-is", "--json")


def test_a_model_from_a_file_and_back_out(run: Run, gguf_file: Path) -> None:
    digest = hashlib.sha256(gguf_file.read_bytes()).hexdigest()
    pulled = pull(run, gguf_file)
    assert pulled.code == 0, pulled.err
    told = pulled.json
    assert set(told) == documented_keys("models list")
    assert told["name"] == "tiny"
    assert told["state"] == "ready"
    assert told["original"]["sha256"] == digest
    assert Path(told["path"]).read_bytes() == gguf_file.read_bytes()

    assert [model["name"] for model in run("models", "list", "--json").json] == ["tiny"]
    assert "tiny" in run("models", "list").out
    shown = run("models", "show", "tiny", "--json").json
    assert {key: value for key, value in shown.items() if key != "memory"} == told
    shown = run("models", "show", "tiny").out
    for part in (digest, "llama", "512 tokens", f"file:{gguf_file}", "no: completions only"):
        assert part in shown
    assert run("models", "verify").code == 0
    assert run("models", "verify", "tiny").code == 0

    removed = run("models", "rm", "tiny")
    assert removed.code == 0
    assert "tiny removed" in removed.err
    assert run("models", "list", "--json").json == []
    assert not Path(told["path"]).exists()


def test_a_pull_for_people_prints_the_name_alone_on_stdout(run: Run, gguf_file: Path) -> None:
    pulled = run("models", "pull", f"file:{gguf_file}", "--as-is", "--name", "mine")
    assert pulled.code == 0
    assert pulled.out == "mine\n"
    assert "ok  model mine" in pulled.err


def test_an_empty_store_says_how_to_begin(run: Run) -> None:
    shown = run("models", "list")
    assert shown.code == 0
    assert "meshslm models pull smollm2-135m-instruct" in shown.err


def test_the_catalogue(run: Run) -> None:
    (first, *_) = run("models", "list", "--available", "--json").json
    assert first["name"] == "smollm2-135m-instruct"
    assert set(first) == documented_keys("models list --available")
    assert len(first["sha256"]) == 64
    assert "Apache-2.0" in run("models", "list", "--available").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("models", "show", "nothing"), "nothing"),
        (("models", "rm", "nothing"), "nothing"),
        (("models", "verify", "nothing"), "nothing"),
        (("models", "pull", "smollm3"), "smollm2-135m-instruct"),
        (("models", "pull", "file:/nowhere/x.gguf"), "/nowhere/x.gguf"),
    ],
)
def test_what_is_not_there(run: Run, words: tuple[str, ...], told: str) -> None:
    shown = run(*words)
    assert shown.code == 1
    assert told in shown.err
    assert "Traceback" not in shown.err


def test_a_wrong_digest(run: Run, gguf_file: Path) -> None:
    shown = run("models", "pull", f"file:{gguf_file}", "--as-is", "--sha256", "0" * 64)
    assert shown.code == 1
    assert "digest" in shown.err
    assert run("models", "list", "--json").json == []


def test_a_file_that_is_no_model(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF but not really")
    shown = run("models", "pull", f"file:{file}", "--as-is")
    assert shown.code == 1
    assert "meshslm: error:" in shown.err


def test_a_damaged_model_is_noticed(run: Run, gguf_file: Path) -> None:
    path = Path(pull(run, gguf_file).json["path"])
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    shown = run("models", "verify")
    assert shown.code == 1
    assert "digest" in shown.err
    assert "no  model tiny" in shown.err


def test_the_memory_that_a_model_needs_is_shown(run: Run, gguf_file: Path) -> None:
    path = Path(pull(run, gguf_file).json["path"])
    needed = run("models", "show", "tiny", "--context", "100", "--slots", "3", "--json").json
    assert (needed["memory"]["context"], needed["memory"]["slots"]) == (100, 3)
    assert needed["memory"]["total_mib"] is None  # the file says nothing of its layers
    assert needed["memory"]["process_mib"] > 0
    told = run("models", "show", "tiny").out
    assert "8 slots of 512 tokens" in told
    assert "lacks layers" in told
    assert run("models", "show", "tiny", "--slots", "0").code == 2
    path.chmod(0o644)
    path.write_bytes(b"")
    assert run("models", "show", "tiny", "--json").json["memory"] is None
    assert "its file is damaged" in run("models", "show", "tiny").out


@pytest.mark.model
def test_the_memory_of_the_default_model(run: Run, model_path: Path) -> None:
    pull_name = ("models", "pull", f"file:{model_path}", "--as-is", "--name", "real")
    assert run(*pull_name).code == 0
    shown = run("models", "show", "real", "--context", "2048", "--slots", "4", "--json").json
    assert shown["memory"]["kv_mib"] == 202.5
    assert 0 < shown["memory"]["draft_mib"] < shown["memory"]["total_mib"] - 48
    assert shown["memory"]["unknown"] == ""
    assert "KV 202, buffers" in run("models", "show", "real", "--slots", "4").out


def test_preparing_what_cannot_be_prepared(run: Run, gguf_file: Path) -> None:
    pull(run, gguf_file)
    before = run("models", "list", "--json").json
    assert run("models", "prepare", "tiny", "--to", "Q2_K").code == 2
    assert "nothing" in run("models", "prepare", "nothing").err
    shown = run("models", "prepare", "tiny")
    assert shown.code == 1
    assert "could not be tried" in shown.err  # it has no weights that an engine could run
    assert run("models", "list", "--json").json == before


@pytest.mark.model
def test_a_synthetic_model(run: Run, model_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "made.gguf"
    words = ("models", "synthesize", str(target), "--tokenizer", str(model_path))
    assert run(*words).code == 2
    assert "--arch, --layers" in run(*words).err
    assert "did you mean 'qwen3-" in run(*words, "--like", "qwen3-1b").err
    assert "cannot be synthesised" in run(*words, "--like", "qwen3-0.6b", "--arch", "t5").err
    small = ("--like", "qwen3-0.6b", "--layers", "1", "--vocabulary", "50000", "--json")
    made = run(*words, *small)
    assert made.code == 0, made.err
    assert set(made.json) == documented_keys("models synthesize")
    assert (made.json["vocabulary"], made.json["size"]) == (50_000, target.stat().st_size)
    assert "is there already" in run(*words, *small).err
    again = run(*words, *small, "--force", "--quant", "Q4_0")
    assert again.json["size"] < made.json["size"]
    pulled = run("models", "pull", f"file:{target}", "--as-is", "--json").json
    prepared = run("models", "prepare", "made", "--to", "q8_0", "--json")
    assert prepared.code == 0, prepared.err
    assert set(prepared.json) == documented_keys("models list")
    assert prepared.json["original"] == pulled["original"]
    assert (prepared.json["wanted"], prepared.json["trials"]) == ("Q8_0", [])
    assert run("models", "prepare", "made", "--to", "Q4_0").out == "Q4_0\n"
    assert run("models", "show", "made", "--json").json["prepared"] is None  # it came as that


def test_another_store(run: Run, gguf_file: Path, tmp_path: Path) -> None:
    where = ("--models-dir", str(tmp_path / "other"))
    assert run("models", "pull", f"file:{gguf_file}", "--as-is", *where).code == 0
    assert run("models", "list", "--json").json == []
    assert len(run("models", "list", "--json", *where).json) == 1


@pytest.mark.parametrize(
    ("count", "text"),
    [(134_515_008, "134.5M"), (1_700_000_000, "1.7B"), (2_000_000_000, "2B"), (64, "64")],
)
def test_parameters(count: int, text: str) -> None:
    assert parameters_text(count) == text


def test_time_left_is_told_from_the_rate() -> None:
    half = Progress(Stage.DOWNLOADING, 50 * 2**20, 100 * 2**20)
    assert progress_text(half, 0, 10.0) == ("downloading 50.0 MiB of 100.0 MiB, about 10 s left")
    assert progress_text(half, 0, 0.1) == ""
    assert progress_text(Progress(Stage.WAITING), 0, 10.0) == ""
    resumed = progress_text(half, 40 * 2**20, 10.0)
    assert resumed.endswith("about 50 s left")


def test_a_log_gets_a_line_when_a_stage_begins(capsys: pytest.CaptureFixture[str]) -> None:
    report = ProgressLines()
    for done in range(3):
        report("m", Progress(Stage.DOWNLOADING, done, 10))
    report("m", Progress(Stage.PREPARING, 0, 10))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "model m: downloading",
        "model m: preparing",
    ]


def test_a_pipe_gets_a_line_when_a_stage_begins(capsys: pytest.CaptureFixture[str]) -> None:
    with Steps() as steps, steps.step("model m") as step:
        report = ModelReport(steps, step)
        report(Progress(Stage.DOWNLOADING, 0, 10))
        report(Progress(Stage.DOWNLOADING, 5, 10))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("model m: downloading")
    assert lines[1].startswith("ok  model m")
    assert len(lines) == 2
