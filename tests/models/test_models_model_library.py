"""The library: a model is ready or it is not, whatever happened on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshslm.engine.gguf import read_header
from meshslm.errors import OurFault
from meshslm.models import model_library as library_module
from meshslm.models.catalogue import Catalogue, CatalogueEntry
from meshslm.models.child import run_child
from meshslm.models.model_library import ModelLibrary
from meshslm.models.prepare import prepared_size
from meshslm.models.progress import Report
from meshslm.models.sources import Fetched, Pin, Source
from tests.models.small_models import Reports, gguf, sha256

MODEL = gguf(general__name="Tiny", general__license="MIT", tokenizer__chat_template="{{ x }}")
OTHER = gguf(general__name="Other")
REPOSITORY = Path(library_module.__file__).parents[2]


def entry(path: Path, content: bytes = MODEL) -> CatalogueEntry:
    return CatalogueEntry(
        name="tiny",
        description="Of the catalogue",
        source=f"file:{path}",
        sha256=sha256(content),
        size=len(content),
        licence="MIT",
        parameters="1",
        quantisation="Q8_0",
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(MODEL)
    return path


@pytest.fixture
def library(tmp_path: Path, file: Path) -> ModelLibrary:
    return ModelLibrary(
        tmp_path / "store", environment=os.environ, catalogue=Catalogue((entry(file),))
    )


def files(library: ModelLibrary) -> list[str]:
    """Everything in the store."""
    root = library.store.root
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


TINY_FILES = [f"blobs/sha256-{sha256(MODEL)}", "manifests/tiny.json"]


def test_a_model_of_the_catalogue_becomes_ready(library: ModelLibrary) -> None:
    assert library.ready("tiny") is None
    reports = Reports()
    model = library.ensure("tiny", reports)
    assert model.path.read_bytes() == MODEL
    assert (model.name, model.digest, model.quantisation) == ("tiny", sha256(MODEL), "Q8_0")
    assert model.manifest.context_length == 512
    assert model.manifest.chat_template
    assert model.manifest.pinned
    assert model.manifest.description == "Of the catalogue"
    assert reports.stages == ["copying"]
    assert files(library) == TINY_FILES


@pytest.mark.parametrize("error", [OurFault("no network"), KeyboardInterrupt()])
def test_a_pull_that_brought_nothing_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fetch(source: Source, stage: Path, pin: Pin, report: Report) -> Fetched:
        (stage / "wheel").mkdir()
        (stage / "model.part").touch()
        raise error

    library = ModelLibrary(tmp_path / "store", environment={}, fetch=fetch)
    with pytest.raises(type(error)):
        library.pull("https://host/tiny.gguf", Reports())
    assert [p for p in library.store.root.rglob("*") if p.name not in ("staging", "locks")] == []
    with pytest.raises(OurFault, match="no model 'tiny'"):
        library.remove("tiny", Reports())


def test_a_pull_that_brought_something_leaves_it(tmp_path: Path) -> None:
    def fetch(source: Source, stage: Path, pin: Pin, report: Report) -> Fetched:
        (stage / "model.part").write_bytes(b"GG")
        raise OurFault("the line was cut")

    library = ModelLibrary(tmp_path / "store", environment={}, fetch=fetch)
    with pytest.raises(OurFault, match="was cut"):
        library.pull("https://host/tiny.gguf", Reports())
    assert files(library) == ["staging/tiny/model.part"]
    assert library.remove("tiny", Reports()) == 2
    assert files(library) == []


def test_a_ready_model_needs_neither_source_nor_time(library: ModelLibrary, file: Path) -> None:
    first = library.ensure("tiny", Reports())
    file.unlink()
    reports = Reports()
    assert library.ensure("tiny", reports) == first
    assert library.pull("tiny", reports) == first
    assert reports.heard == []


def test_a_stored_model_needs_no_catalogue(library: ModelLibrary, file: Path) -> None:
    library.pull(f"file:{file}", Reports(), name="mine")
    model = library.ready("mine")
    assert model is not None
    assert not model.manifest.pinned
    assert model.manifest.description == "Tiny"
    assert model.manifest.licence == "MIT"
    library.store.path(model.manifest.original).unlink()
    assert library.ready("mine") is None
    assert library.show("mine").state == "damaged"
    again = library.ensure("mine", Reports())
    assert again.path == model.path
    assert again.manifest.pinned  # to what it was before


def test_a_blob_cannot_be_changed_by_mistake(library: ModelLibrary) -> None:
    assert library.ensure("tiny", Reports()).path.stat().st_mode & 0o222 == 0


def test_an_unknown_name_is_refused_with_the_nearest(library: ModelLibrary) -> None:
    with pytest.raises(OurFault, match="did you mean 'tiny'"):
        library.pull("tinny", Reports())
    library.ensure("tiny", Reports())
    for refused in (library.show, lambda name: library.remove(name, Reports())):
        with pytest.raises(OurFault, match="no model 'tinny' here; did you mean 'tiny'"):
            refused("tinny")


@pytest.mark.parametrize("name", ["../x", "", ".", "a/b", "A", "a\n", "-a", "x" * 65])
def test_a_name_is_never_a_path(library: ModelLibrary, file: Path, name: str) -> None:
    with pytest.raises(OurFault):
        library.show(name)
    with pytest.raises(OurFault):
        library.remove(name, Reports())
    if name:
        with pytest.raises(OurFault, match="cannot be a model's name"):
            library.pull(f"file:{file}", Reports(), name=name)


def test_a_wrong_digest_is_told_with_both_and_leaves_nothing(
    library: ModelLibrary, file: Path
) -> None:
    changed = MODEL.replace(b"Tiny", b"Tinz")
    file.write_bytes(changed)
    with pytest.raises(OurFault, match=f"expected {sha256(MODEL)}, got {sha256(changed)}"):
        library.ensure("tiny", Reports())
    assert files(library) == []


def test_a_digest_can_be_asked_for(library: ModelLibrary, file: Path) -> None:
    with pytest.raises(OurFault, match="wrong digest"):
        library.pull(f"file:{file}", Reports(), sha256="0" * 64)
    with pytest.raises(OurFault, match="64 hex digits"):
        library.pull(f"file:{file}", Reports(), sha256="12")
    model = library.pull(f"file:{file}", Reports(), sha256=sha256(MODEL).upper())
    assert model.manifest.pinned
    with pytest.raises(OurFault, match="is here already, with digest"):
        library.pull(f"file:{file}", Reports(), sha256="0" * 64)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "a header alone has 24"),
        (b"<html>not found</html>" * 10, "instead of b'GGUF'"),
        (MODEL[:-1], "cut short"),
        (MODEL[:200], "cut short"),
        (gguf(general__type="adapter"), "of kind 'adapter', not a language model"),
        (gguf(architecture=""), "without weights"),
    ],
)
def test_what_is_no_model_is_refused_and_leaves_nothing(
    library: ModelLibrary, file: Path, content: bytes, error: str
) -> None:
    file.write_bytes(content)
    with pytest.raises(OurFault, match=error) as caught:
        library.pull(f"file:{file}", Reports(), name="x")
    assert str(caught.value).startswith("x cannot be used: ")
    assert files(library) == []


@pytest.mark.parametrize(("path", "error"), [("gone.gguf", "does not exist"), (".", "is a folder")])
def test_a_file_that_is_none(library: ModelLibrary, tmp_path: Path, path: str, error: str) -> None:
    with pytest.raises(OurFault, match=error):
        library.pull(f"file:{tmp_path / path}", Reports(), name="x")


def test_a_name_that_is_taken_by_another_source(
    library: ModelLibrary, file: Path, tmp_path: Path
) -> None:
    library.ensure("tiny", Reports())
    other = tmp_path / "other.gguf"
    other.write_bytes(OTHER)
    with pytest.raises(OurFault, match="tiny is here already, from file:"):
        library.pull(f"file:{other}", Reports(), name="tiny")
    assert library.ensure("tiny", Reports()).digest == sha256(MODEL)


def test_the_list_and_the_manifest_on_the_disk(library: ModelLibrary) -> None:
    assert library.models() == ()
    library.ensure("tiny", Reports())
    (stored,) = library.models()
    assert (stored.manifest.name, stored.state) == ("tiny", "ready")
    manifest = json.loads((library.store.root / "manifests" / "tiny.json").read_text())
    assert manifest["original"] == {
        "sha256": sha256(MODEL),
        "size": len(MODEL),
        "quantisation": "Q8_0",
    }


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": "tiny"}', b"\xff"])
def test_a_damaged_manifest_is_told_and_can_be_removed(
    library: ModelLibrary, content: bytes
) -> None:
    library.ensure("tiny", Reports())
    (library.store.root / "manifests" / "tiny.json").write_bytes(content)
    with pytest.raises(OurFault, match=r"tiny.json is damaged .*run `meshslm models rm tiny`"):
        library.ready("tiny")
    assert library.remove("tiny", Reports()) == len(MODEL)
    assert library.ensure("tiny", Reports()).digest == sha256(MODEL)


# --- removal and verification -------------------------------------------------------------------
def test_removing_keeps_what_others_use(library: ModelLibrary, file: Path) -> None:
    library.ensure("tiny", Reports())
    library.pull(f"file:{file}", Reports(), name="same")
    assert library.remove("tiny", Reports()) == 0
    assert library.ready("same") is not None
    assert library.remove("same", Reports()) == len(MODEL)
    assert files(library) == []


def test_removing_takes_what_an_interrupted_pull_left(library: ModelLibrary) -> None:
    with pytest.raises(KeyboardInterrupt):
        library.ensure("tiny", Reports("copying"))
    assert files(library) == ["staging/tiny/model"]
    assert library.remove("tiny", Reports()) == len(MODEL)
    assert files(library) == []


def test_verifying_reads_the_content(library: ModelLibrary) -> None:
    model = library.ensure("tiny", Reports())
    library.verify("tiny", Reports())
    model.path.chmod(0o644)
    content = bytearray(MODEL)
    content[-1] ^= 1
    model.path.write_bytes(content)
    assert library.ready("tiny") is not None  # the size alone is right
    with pytest.raises(OurFault, match=f"has digest {sha256(bytes(content))}"):
        library.verify("tiny", Reports())
    model.path.write_bytes(MODEL[:-1])
    with pytest.raises(OurFault, match="missing or cut short"):
        library.verify("tiny", Reports())


# --- interruption and concurrency ---------------------------------------------------------------
def test_a_stopped_pull_goes_on(library: ModelLibrary) -> None:
    with pytest.raises(KeyboardInterrupt):
        library.ensure("tiny", Reports("copying"))
    assert library.ready("tiny") is None
    library.ensure("tiny", Reports())
    assert files(library) == TINY_FILES


def test_a_fetch_that_fails_leaves_its_part_to_go_on_from(tmp_path: Path) -> None:
    attempts: list[bytes] = []

    def fetch(source: Source, stage: Path, pin: Pin, report: object) -> Fetched:
        part = stage / "part"
        attempts.append(part.read_bytes() if part.exists() else b"")
        part.write_bytes(MODEL[: len(MODEL) // 2])
        if len(attempts) == 1:
            raise OurFault("the network is gone")
        part.write_bytes(MODEL)
        return Fetched(part, sha256(MODEL), len(MODEL))

    catalogue = Catalogue((entry(Path("/nowhere")),))
    library = ModelLibrary(tmp_path, environment={}, catalogue=catalogue, fetch=fetch)
    with pytest.raises(OurFault, match="the network is gone"):
        library.ensure("tiny", Reports())
    library.ensure("tiny", Reports())
    assert attempts == [b"", MODEL[: len(MODEL) // 2]]
    assert files(library) == TINY_FILES


PULLER = """
import sys
from pathlib import Path
from meshslm.models.model_library import ModelLibrary

told = set()

def report(progress):
    if progress.stage not in told:
        told.add(progress.stage)
        print(progress.stage.value, flush=True)
        if progress.stage == "copying":
            sys.stdin.readline()

library = ModelLibrary(Path(sys.argv[1]), environment={})
print(library.pull(sys.argv[2], report, name="tiny").digest, flush=True)
"""


def test_two_processes_pull_once(library: ModelLibrary, file: Path) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PULLER, str(library.store.root), f"file:{file}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )

    with start() as first, start() as second:
        told = []
        for process in (first, second):
            assert process.stdout is not None
            told.append(process.stdout.readline().strip())
        assert sorted(told) == ["copying", "waiting"]
        copying = (first, second)[told.index("copying")]
        waiting = (first, second)[told.index("waiting")]
        digest = sha256(MODEL) + "\n"
        assert copying.communicate("\n", timeout=30)[0] == digest
        assert waiting.communicate(timeout=30)[0] == digest
    assert files(library) == TINY_FILES


def test_a_process_that_is_killed_leaves_a_store_that_works(
    library: ModelLibrary, file: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PULLER, str(library.store.root), f"file:{file}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "copying\n"
    process.kill()
    process.communicate()
    assert library.ensure("tiny", Reports()).digest == sha256(MODEL)
    assert files(library) == TINY_FILES


# --- preparation --------------------------------------------------------------------------------
@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A file that says of itself that it is Q4_1."""
    path = tmp_path / "raw.gguf"
    path.write_bytes(gguf(file_type=3))
    return path


def test_it_can_be_left_as_it_is(library: ModelLibrary, raw: Path) -> None:
    model = library.pull(f"file:{raw}", Reports(), prepared=False)
    assert model.quantisation == "Q4_1"
    assert library.show("raw").state == "ready"
    assert library.ensure("raw", Reports()) == model


def made_by(content: bytes) -> str:
    """A quantiser that makes a file with `content`."""
    return f"import sys; open(sys.argv[2], 'wb').write({content!r})"


def quantise_with(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let a short program stand for the quantiser: the way from its file to the store is tested."""

    def run(argv: list[str], **options: object) -> None:
        at = argv.index("meshslm.engine.quantise") + 1
        run_child([sys.executable, "-c", program, *argv[at:]], **options)  # type: ignore[arg-type]  # what it took

    monkeypatch.setattr("meshslm.models.prepare.run_child", run)


def test_a_prepared_model_has_both_digests(
    library: ModelLibrary, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantise_with(monkeypatch, made_by(MODEL))
    reports = Reports()
    model = library.pull(f"file:{raw}", reports)
    assert (model.quantisation, model.digest) == ("Q8_0", sha256(MODEL))
    assert model.manifest.original.sha256 == sha256(raw.read_bytes())
    assert model.manifest.prepared_by.startswith("meshslm ")
    assert reports.stages == ["copying", "preparing"]
    library.verify("raw", Reports())
    library.store.path(model.manifest.used).unlink()
    assert library.show("raw").state == "damaged"
    again = Reports()
    assert library.ensure("raw", again).digest == sha256(MODEL)
    assert again.stages == ["preparing"]
    assert library.remove("raw", Reports()) == len(MODEL) + raw.stat().st_size


def test_a_preparation_that_is_stopped_is_done_later(
    library: ModelLibrary, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantise_with(monkeypatch, made_by(MODEL))
    with pytest.raises(KeyboardInterrupt):
        library.pull(f"file:{raw}", Reports("preparing"))
    assert library.ready("raw") is None
    assert library.show("raw").state == "unprepared"
    again = Reports()
    assert library.ensure("raw", again).quantisation == "Q8_0"
    assert "copying" not in again.stages


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("print('it is too odd'); raise SystemExit(3)", "exit code 3: it is too odd"),
        ("import os; os.abort()", "exit code -6: it said nothing"),
        (made_by(MODEL[:-1]), "cut short"),
        (made_by(gguf(file_type=2)), "made Q4_0 instead of Q8_0"),
        ("pass", "cannot read the model file"),
    ],
)
def test_a_preparation_that_fails_is_told_and_leaves_the_original(
    library: ModelLibrary,
    raw: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    error: str,
) -> None:
    quantise_with(monkeypatch, program)
    with pytest.raises(OurFault, match=error):
        library.pull(f"file:{raw}", Reports())
    assert library.show("raw").state == "unprepared"
    monkeypatch.undo()
    quantise_with(monkeypatch, made_by(MODEL))
    assert library.ensure("raw", Reports()).quantisation == "Q8_0"


def test_the_size_of_a_prepared_file_is_known_beforehand(raw: Path) -> None:
    assert prepared_size(read_header(raw)) >= raw.stat().st_size
