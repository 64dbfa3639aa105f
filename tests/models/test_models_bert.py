"""Embedding models: conversion from how they are published, and llama.cpp's vectors of them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.gguf import read_header
from meshslm.errors import OurFault
from meshslm.models.convert_bert import convert_archive, is_archive
from meshslm.models.model_library import ModelLibrary
from meshslm.models.safetensors import read_safetensors
from tests.models import small_bert
from tests.models.small_models import Reports, sha256

PROBE = Path(__file__).with_name("embed_probe.py")
SAME_DIRECTION = 0.9999
"""Cosine of llama.cpp's vector and that of the definition: it rounds to 16 bits, and its GELU is an
approximation."""


def embedded(model: Path, texts: list[str]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(PROBE), str(model)],
        input=json.dumps(texts).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def cosine(one: Any, other: Any) -> float:
    return float(np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other)))


def stored(folder: Path, content: bytes) -> Path:
    path = folder / "model.zip"
    path.write_bytes(content)
    return path


def test_the_converted_file_is_whole_and_the_same_each_time(tmp_path: Path) -> None:
    archive = stored(tmp_path, small_bert.archive())
    assert is_archive(archive)
    reports = Reports()
    made = convert_archive(archive, "small", tmp_path, reports)
    assert made.sha256 == sha256(made.path.read_bytes())
    header = read_header(made.path)
    assert (header.architecture, header.quantisation, header.vocabulary) == ("bert", "F16", 17)
    assert header.number("bert.pooling_type") == 1
    assert header.metadata["tokenizer.ggml.tokens"] == (
        *small_bert.SPECIAL,
        *("\u2581a", "\u2581cat", "\u2581dog", "\u2581sits", "s", "\u2581on", "\u2581the"),
        *("\u2581mat", "ting", "\u2581.", "\u2581caf", "e"),
    )
    assert {t.type for t in header.tensors if len(t.shape) == 1} == {"F32"}
    assert reports.stages == ["unpacking", "converting"]
    assert not (tmp_path / "weights").exists()
    assert convert_archive(archive, "other", tmp_path, reports).sha256 == made.sha256


@pytest.mark.model
def test_llama_cpp_computes_what_the_model_defines(tmp_path: Path) -> None:
    made = convert_archive(stored(tmp_path, small_bert.archive()), "small", tmp_path, Reports())
    texts = ["A cat sits on the mat.", "the dogs", "Caf\u00e9 catting."]
    found = embedded(made.path, texts)
    assert found[0]["tokens"] == [2, 5, 6, 8, 10, 11, 12, 14, 3]
    assert found[1]["tokens"] == [2, 11, 7, 9, 3]
    assert found[2]["tokens"] == [2, 15, 16, 6, 13, 14, 3]
    for one in found:
        wanted = small_bert.vector(small_bert.weights(), one["tokens"])
        assert cosine(one["vector"], wanted) > SAME_DIRECTION
        assert math.isclose(np.linalg.norm(one["vector"]), np.linalg.norm(wanted), rel_tol=0.01)


@pytest.mark.model
def test_similar_sentences_are_closer_than_different_ones(embedding_path: Path) -> None:
    found = embedded(
        embedding_path,
        [
            "A cat sits on the mat.",
            "A kitten is sitting on a rug.",
            "The stock market fell sharply on Monday.",
            "Shares lost a lot of value at the beginning of the week.",
        ],
    )
    cat, kitten, market, shares = (one["vector"] for one in found)
    assert len(cat) == 384
    assert cosine(cat, kitten) > 0.5
    assert cosine(market, shares) > 0.5
    assert max(cosine(a, b) for a in (cat, kitten) for b in (market, shares)) < 0.25


def test_the_library_takes_an_archive_in(tmp_path: Path) -> None:
    archive = stored(tmp_path, small_bert.archive())
    digest = sha256(archive.read_bytes())
    library = ModelLibrary(tmp_path / "models", environment={})
    pulled = library.pull(f"file:{archive}", Reports(), name="small", sha256=digest, prepared=False)
    manifest = pulled.manifest
    assert (manifest.converted_from, manifest.pinned) == (digest, True)
    assert manifest.original.sha256 == sha256(pulled.path.read_bytes()) != digest
    assert "BERT" in manifest.converted_by
    pulled.path.unlink()  # a damaged model is pulled again, with what is known of it
    again = library.pull("small", Reports(), prepared=False)
    assert again.path.is_file()
    with pytest.raises(OurFault, match="is here already, with digest"):
        library.pull(f"file:{archive}", Reports(), name="small", sha256="0" * 64, prepared=False)


def test_what_is_no_model_leaves_nothing(tmp_path: Path) -> None:
    archive = stored(tmp_path, small_bert.archive(without="config.json"))
    library = ModelLibrary(tmp_path / "models", environment={})
    with pytest.raises(OurFault, match=r"has no config\.json"):
        library.pull(f"file:{archive}", Reports(), name="small")
    assert not list((tmp_path / "models" / "staging").iterdir())
    assert library.models() == ()


def changed(part: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {**part, **values}


def tensors(**changes: Any) -> bytes:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    made: dict[str, Any] = {**small_bert.weights(), **named}
    return small_bert.safetensors({n: t for n, t in made.items() if t is not None})


VOCABULARY = small_bert.TOKENIZER["model"]["vocab"]
HUGE = np.full((small_bert.WIDTH, small_bert.WIDTH), 1e6, dtype=np.float32)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"without": "tokenizer.json"}, "has no tokenizer.json"),
        ({"without": "model.safetensors"}, "has no model.safetensors"),
        ({"config": changed(small_bert.CONFIG, model_type="t5")}, "config.json: Invalid enum"),
        ({"config": changed(small_bert.CONFIG, hidden_act="relu")}, "hidden_act"),
        ({"config": changed(small_bert.CONFIG, hidden_size=2**40)}, "hidden_size"),
        ({"config": changed(small_bert.CONFIG, num_attention_heads=3)}, "3 heads do not divide"),
        ({"config": changed(small_bert.CONFIG, vocab_size=18)}, "has 17 tokens"),
        ({"config": changed(small_bert.CONFIG, vocab_size=16)}, "has the number 16"),
        ({"config": changed(small_bert.CONFIG, num_hidden_layers=3)}, "no tensor encoder.layer.2"),
        ({"pooling": {"pooling_mode_max_tokens": True}}, "only the mean or the first"),
        ({"tokenizer": {"model": {"type": "BPE"}}}, "tokenizer.json"),
        (
            {
                "tokenizer": changed(
                    small_bert.TOKENIZER,
                    model={"type": "WordPiece", "vocab": {**VOCABULARY, "cat": 5}},
                )
            },
            "has the number 5",
        ),
        ({"tensors": b""}, "no safetensors file"),
        ({"tensors": b"\xff" * 100}, "its header has 18446744073709551615 bytes"),
        ({"tensors": tensors()[:-4]}, "is damaged"),
        (
            {"tensors": small_bert.safetensors(small_bert.weights(), "F64")},
            "is damaged.*type F64",
        ),
        (
            {"tensors": tensors(embeddings__LayerNorm__bias=np.zeros(3, dtype=np.float32))},
            r"has shape \(3,\), expected \(64,\)",
        ),
        (
            {"tensors": tensors(encoder__layer__0__attention__self__key__weight=HUGE)},
            "too large for F16",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused(
    tmp_path: Path, parts: dict[str, Any], why: str
) -> None:
    archive = stored(tmp_path, small_bert.archive(**parts))
    with pytest.raises(OurFault, match=why):
        convert_archive(archive, "small", tmp_path, Reports())
    assert not (tmp_path / "weights").exists()


@given(st.data())
def test_a_damaged_weight_file_raises_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = small_bert.safetensors({"a": np.ones((2, 3), dtype=np.float32)})
    at = data.draw(st.integers(0, len(good) - 1))
    damaged = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    path = tmp_path_factory.mktemp("damaged") / "file"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        found = read_safetensors(path)
    except OurFault:
        return
    for tensor in found.values():
        assert tensor.offset + tensor.nbytes <= path.stat().st_size


def test_an_archive_that_is_cut_short(tmp_path: Path) -> None:
    archive = stored(tmp_path, small_bert.archive()[:2000])
    with pytest.raises(OurFault, match="damaged"):
        convert_archive(archive, "small", tmp_path, Reports())
