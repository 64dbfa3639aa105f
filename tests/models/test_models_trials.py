"""Choosing the format of a model: the rule, what is kept, and the real trial of real files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import data
from meshslm.cli.model_preparation import FORMATS
from meshslm.engine.gguf import read_header
from meshslm.engine.gguf_types import FILE_TYPES
from meshslm.errors import OurFault
from meshslm.models import trials as trials_module
from meshslm.models.child import run_child
from meshslm.models.comparison import LeftOut
from meshslm.models.model_library import ModelLibrary
from meshslm.models.progress import Progress, Report, Stage
from meshslm.models.synthetic import ModelShape, synthesise
from meshslm.models.trials import CANDIDATES, FASTER, LOSS, Measured, Trial, choose, measure
from tests.models.small_models import Reports, gguf

FILES = {name: gguf(file_type=number) for number, name in FILE_TYPES.items()}


def trial(name: str, *, speed: float = 100.0, perplexity: float = 10.0, same: bool = True) -> Trial:
    return Trial(name, 1000, Measured(speed, speed, speed, perplexity, same, 100))


# --- the rule -------------------------------------------------------------------------------------
def chosen(*trials: Trial) -> str:
    return choose(trials).quantisation


def test_eight_bits_are_usual() -> None:
    assert chosen(trial("F16"), trial("Q8_0")) == "Q8_0"
    assert chosen(trial("F16"), trial("Q8_0", speed=90), trial("Q4_0", speed=100)) == "Q8_0"
    assert chosen(trial("F16", speed=110), trial("Q8_0")) == "Q8_0"


def test_a_much_faster_format_that_loses_nothing_is_better() -> None:
    assert chosen(trial("F16"), trial("Q8_0"), trial("Q4_K_M", speed=130)) == "Q4_K_M"


def test_speed_buys_neither_quality_nor_sameness() -> None:
    poor = trial("Q4_0", speed=1000, perplexity=10.2)
    odd = trial("IQ4_NL", speed=1000, same=False)
    assert chosen(trial("F16"), trial("Q8_0"), poor, odd) == "Q8_0"


def test_without_a_good_one_the_least_bad() -> None:
    original = trial("F16", same=False)
    assert chosen(original, trial("Q4_0", perplexity=12)) == "Q4_0"
    assert chosen(original, trial("Q8_0", perplexity=9, same=False)) == "Q8_0"


MEASURED = st.builds(
    Measured,
    prefill_tps=st.floats(1, 1e4),
    decode_tps=st.floats(1, 1e4),
    together_tps=st.floats(1, 1e4),
    perplexity=st.floats(1, 1e3),
    batch_invariant=st.booleans(),
    memory_mib=st.integers(1, 10**6),
)


@given(st.lists(MEASURED, min_size=1, max_size=5))
def test_the_rule(found: list[Measured]) -> None:
    names = ("F16", *CANDIDATES)
    all_of_them = [Trial(name, 1, one) for name, one in zip(names, found, strict=False)]
    taken, original = choose(all_of_them), all_of_them[0]
    same = [one for one in all_of_them if one.measured.batch_invariant]
    good = [one for one in same if one.loss(original) <= LOSS]
    assert taken in (good or same or all_of_them)
    if good:
        assert taken.seconds <= min(one.seconds for one in good) * FASTER
    else:
        assert all(taken.loss(original) <= one.loss(original) for one in same)


def test_the_command_offers_what_can_be_made() -> None:
    assert FORMATS == CANDIDATES


# --- preparing ------------------------------------------------------------------------------------
Prepared = Callable[..., ModelLibrary]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """A library with the F16 model `raw`, prepared as Q8_0; short programs stand for llama.cpp."""

    def quantise(argv: list[str], **options: object) -> None:
        at = argv.index("meshslm.engine.quantise") + 1
        program = f"import sys; open(sys.argv[2], 'wb').write({FILES!r}[sys.argv[3]])"
        run_child([sys.executable, "-c", program, *argv[at:]], **options)  # type: ignore[arg-type]  # what it took

    def make(**speeds: float) -> ModelLibrary:
        def try_it(path: Path, _log: Path, report: Report, _environment: object) -> Measured:
            report(Progress(Stage.MEASURING))
            name = read_header(path).quantisation
            if speeds.get(name) == 0:
                raise OurFault("it cannot be run")
            return trial(name, speed=speeds.get(name, 100)).measured

        monkeypatch.setattr("meshslm.models.prepare.run_child", quantise)
        monkeypatch.setattr("meshslm.models.comparison.measure", try_it)
        (tmp_path / "raw.gguf").write_bytes(FILES["F16"])
        library = ModelLibrary(tmp_path / "store", environment=os.environ)
        library.pull(f"file:{tmp_path / 'raw.gguf'}", Reports())
        return library

    return make


def state(library: ModelLibrary) -> dict[str, bytes]:
    """Every file of a store but its locks."""
    return {
        str(path.relative_to(library.store.root)): path.read_bytes()
        for path in library.store.root.rglob("*")
        if path.is_file() and path.parent.name != "locks"
    }


def test_all_formats_are_tried_and_the_best_is_kept(prepared: Prepared) -> None:
    library, heard = prepared(Q4_K_M=200.0), list[Trial | LeftOut]()
    model = library.prepare("raw", Reports(), heard.append)
    assert [one.quantisation for one in heard] == ["F16", *CANDIDATES]
    assert model.quantisation == "Q4_K_M"
    assert model.path.read_bytes() == FILES["Q4_K_M"]
    assert model.manifest.trials == tuple(heard)
    assert model.manifest.original.quantisation == "F16"
    assert model.manifest.prepared_by.startswith("meshslm ")
    assert library.ready("raw") == model
    assert library.ensure("raw", Reports()) == model  # which does not prepare it as Q8_0 again
    assert library.pull("raw", Reports()) == model
    library.verify("raw", Reports())
    assert not list((library.store.root / "staging").iterdir())


def test_the_original_may_be_the_best(prepared: Prepared) -> None:
    library = prepared(F16=200.0)
    model = library.prepare("raw", Reports(), lambda _: None)
    assert (model.quantisation, model.manifest.prepared) == ("F16", None)
    assert library.ready("raw") == model


def test_a_format_by_name(prepared: Prepared) -> None:
    library, heard = prepared(), list[Trial | LeftOut]()
    model = library.prepare("raw", Reports(), heard.append, to="Q4_0")
    assert (model.quantisation, heard) == ("Q4_0", [])
    library.store.path(model.manifest.used).unlink()
    assert library.ensure("raw", Reports()).quantisation == "Q4_0"
    with pytest.raises(OurFault, match="not prepared as 'Q2_K'"):
        library.prepare("raw", Reports(), heard.append, to="Q2_K")
    assert library.show("raw").state == "ready"


@pytest.mark.parametrize("at", ["preparing", "measuring"])
@pytest.mark.parametrize("to", ["", "Q4_0"])
def test_what_is_stopped_leaves_everything_as_it_was(prepared: Prepared, at: str, to: str) -> None:
    library = prepared()
    before = state(library)
    if (at, to) != ("measuring", "Q4_0"):
        with pytest.raises(KeyboardInterrupt):
            library.prepare("raw", Reports(stop_at=at), lambda _: None, to=to)
    assert state(library) == before


def test_a_format_that_cannot_be_run_is_left_out(prepared: Prepared) -> None:
    library, heard = prepared(IQ4_NL=0), list[Trial | LeftOut]()
    library.prepare("raw", Reports(), heard.append)
    (left,) = [one for one in heard if isinstance(one, LeftOut)]
    assert (left.quantisation, left.why) == ("IQ4_NL", "it cannot be run")
    assert len(library.show("raw").manifest.trials) == 4


def test_an_original_that_cannot_be_run_stops_it(prepared: Prepared) -> None:
    library = prepared(F16=0)
    before = state(library)
    with pytest.raises(OurFault, match="raw: it cannot be run"):
        library.prepare("raw", Reports(), lambda _: None)
    assert state(library) == before


def test_an_embedding_model_is_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "raw.gguf"
    path.write_bytes(gguf(architecture="bert"))
    library = ModelLibrary(tmp_path / "store", environment=os.environ)
    library.pull(f"file:{path}", Reports())
    with pytest.raises(OurFault, match="is an embedding model"):
        library.prepare("raw", Reports(), lambda _: None)


# --- the trial ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import sys; sys.exit('it broke')", "exit code 1.*it broke"),
        ("import os; os.kill(os.getpid(), 6)", "exit code -6.*said nothing"),
        ("print('hello')", "not understood"),
        ("pass", "not understood"),
        ("""print('{"prefill_tps": "fast"}')""", "not understood"),
    ],
)
def test_a_trial_that_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    def run(_argv: list[str], **options: object) -> None:
        run_child([sys.executable, "-c", program], **options)  # type: ignore[arg-type]  # what it took

    monkeypatch.setattr(trials_module, "run_child", run)
    with pytest.raises(OurFault, match=why):
        measure(tmp_path / "x.gguf", tmp_path / "log", Reports(), os.environ)


def test_the_text_is_long_enough_and_plain() -> None:
    text = data.trial_text()
    assert 2000 < len(text) < 4096
    assert text.isascii()


@pytest.mark.model
def test_a_synthetic_model_is_tried_in_every_format(tmp_path: Path, model_path: Path) -> None:
    """With the real quantiser and the real trial; its perplexity is worse than guessing."""
    shape = ModelShape("qwen3", 2, 256, 512, 4, 2, 64)
    synthesise(tmp_path / "raw.gguf", shape, "F16", model_path, Reports())
    library = ModelLibrary(tmp_path / "store", environment=os.environ)
    library.pull(f"file:{tmp_path / 'raw.gguf'}", Reports(), prepared=False)
    heard: list[Trial | LeftOut] = []
    model = library.prepare("raw", Reports(), heard.append)
    tried = [one for one in heard if isinstance(one, Trial)]
    assert [one.quantisation for one in tried] == ["F16", *CANDIDATES], heard
    for one in tried:
        found = one.measured
        assert min(found.prefill_tps, found.decode_tps, found.together_tps) > 0
        assert 10_000 < found.perplexity < 1e7  # of 49,152 tokens; it is sure of nonsense
        assert found.memory_mib > 50
    sizes = {one.quantisation: one.size for one in tried}
    assert sizes["F16"] > sizes["Q8_0"] > sizes["Q4_K_M"] > sizes["Q4_0"]
    eight = next(one for one in tried if one.quantisation == "Q8_0")
    assert eight.measured.batch_invariant
    assert model.manifest.trials == tuple(tried)
    again = json.loads(msgspec.json.encode(model.manifest))
    assert again["trials"][0]["measured"]["perplexity"] > 1
