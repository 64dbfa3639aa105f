"""A packed e5 model becomes a GGUF file: the same weights, tokens and normal forms."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.gguf import read_header
from meshslm.errors import OurFault
from meshslm.models.charsmap import charsmap
from meshslm.models.conversions import PACKED_E5, converter_of
from meshslm.models.convert_e5 import convert_packed_e5, is_packed_e5
from tests.models import small_bert
from tests.models.small_bert import HEADS, INNER, LAYERS, PLACES, WIDTH
from tests.models.small_models import Reports, sha256
from tests.models.test_models_bert import SAME_DIRECTION, cosine, embedded

PIECES = ("<s>", "<pad>", "</s>", "<unk>", "\u2581", "\u2581a", "\u2581cat", "s", "\u2581sit", "fi")
SPARE = len(small_bert.VOCABULARY) - len(PIECES)
FORMS = {ord("\ufb01"): "fi", ord("\t"): " ", ord("\u200b"): ""}
NAMES = {
    "embeddings.word_embeddings.weight": "emb.word",
    "embeddings.position_embeddings.weight": "emb.pos",
    "embeddings.token_type_embeddings.weight": "emb.type",
    "embeddings.LayerNorm.weight": "emb.ln.w",
    "embeddings.LayerNorm.bias": "emb.ln.b",
}
PARTS = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "output.LayerNorm": "oln",
}
Weights = dict[str, npt.NDArray[np.float32]]


def blocks(matrix: npt.NDArray[np.float32]) -> tuple[bytes, npt.NDArray[np.float32]]:
    """A matrix in blocks of four bits, and what is left of it."""
    rows = matrix.reshape(-1, 32)
    scale = (np.abs(rows).max(axis=1, keepdims=True) / 7).astype(np.float16)
    levels = np.clip(np.round(rows / scale.astype(np.float32)), -8, 7)
    places = (levels + 8).astype(np.uint8)
    packed = places[:, :16] | (places[:, 16:] << 4)
    left = levels * scale.astype(np.float32)
    return np.hstack([scale.view(np.uint8), packed]).tobytes(), left.reshape(matrix.shape)


def packed(*, pieces: tuple[str, ...] = PIECES, layers: int = LAYERS) -> tuple[bytes, Weights]:
    """A packed file, and the weights that are in it."""
    names = dict(NAMES)
    for layer in range(LAYERS):
        for theirs, ours in PARTS.items():
            names[f"encoder.layer.{layer}.{theirs}.weight"] = f"l{layer}.{ours}.w"
            names[f"encoder.layer.{layer}.{theirs}.bias"] = f"l{layer}.{ours}.b"
    weights = small_bert.weights()
    bodies: list[tuple[str, int, bytes]] = []
    for theirs, ours in names.items():
        tensor = weights[theirs]
        coarse = tensor.ndim == 2 and ours not in ("emb.pos", "emb.type")
        body = tensor.tobytes()
        if coarse:
            body, weights[theirs] = blocks(tensor)
        bodies.append((ours, int(coarse), body))
    shape = (WIDTH, layers, HEADS, INNER, len(small_bert.VOCABULARY), PLACES, 2)
    texts = [piece.encode() for piece in pieces]
    ends = np.cumsum([0, *map(len, texts)])
    head = b"E5S1" + struct.pack("<I7ifi", 1, *shape, 1e-12, 32)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, ends[-1])
    head += struct.pack(f"<{len(ends)}I", *ends)
    head += struct.pack(f"<{len(pieces)}f", *(-float(n) for n in range(len(pieces))))
    head += b"".join(texts)
    forms = b"".join(
        struct.pack(f"<IB{len(form)}I", code, len(form), *map(ord, form))
        for code, form in sorted(FORMS.items())
    )
    head += struct.pack("<iI", len(FORMS), len(forms)) + forms
    at = len(head) + 4 + sum(2 + len(name) + 21 for name, _, _ in bodies)
    directory = struct.pack("<i", len(bodies))
    for name, kind, body in bodies:
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", kind, 0, at, len(body))
        at += len(body)
    return head + directory + b"".join(body for _, _, body in bodies), weights


def stored(folder: Path, content: bytes) -> Path:
    path = folder / "model.bin"
    path.write_bytes(content)
    return path


def test_the_converted_file_is_whole_and_the_same_each_time(tmp_path: Path) -> None:
    path = stored(tmp_path, packed()[0])
    assert is_packed_e5(path)
    assert converter_of(path) == PACKED_E5
    made = convert_packed_e5(path, "small", tmp_path, Reports())
    assert made.sha256 == sha256(made.path.read_bytes())
    header = read_header(made.path)
    assert (header.architecture, header.quantisation, header.vocabulary) == ("bert", "Q4_0", 17)
    assert header.metadata["tokenizer.ggml.tokens"] == (
        *PIECES,
        *(f"[unused{number}]" for number in range(SPARE)),
    )
    assert convert_packed_e5(path, "other", tmp_path, Reports()).sha256 == made.sha256


@pytest.mark.model
def test_llama_cpp_computes_what_the_model_defines(tmp_path: Path) -> None:
    content, weights = packed()
    made = convert_packed_e5(stored(tmp_path, content), "small", tmp_path, Reports())
    found = embedded(made.path, ["a cats", "a\ta \ufb01", "\u200bcat q"])
    assert found[0]["tokens"] == [0, 5, 6, 7, 2]
    assert found[1]["tokens"] == [0, 5, 5, 4, 9, 2]
    assert found[2]["tokens"] == [0, 6, 4, 3, 2]
    for one in found:
        wanted = small_bert.vector(weights, one["tokens"])
        assert cosine(one["vector"], wanted) > SAME_DIRECTION - 0.004  # sums of 8-bit products
        assert math.isclose(np.linalg.norm(one["vector"]), np.linalg.norm(wanted), rel_tol=0.05)


@pytest.mark.parametrize("cut", [4, 12, 40, 90, 200, 400, 2_000, -1])
def test_a_cut_file_is_refused(tmp_path: Path, cut: int) -> None:
    whole, _ = packed()
    path = stored(tmp_path, whole[:cut])
    with pytest.raises(OurFault, match=r"damaged|cut short"):
        convert_packed_e5(path, "small", tmp_path, Reports())


def test_a_file_that_lacks_layers_or_lies_is_refused(tmp_path: Path) -> None:
    whole, _ = packed(layers=LAYERS + 1)
    with pytest.raises(OurFault, match=r"no tensor l2\.q\.w"):
        convert_packed_e5(stored(tmp_path, whole), "small", tmp_path, Reports())
    whole, _ = packed()
    for at, value in ((8, 33), (16, 3), (24, 2**30), (40, 7)):
        lying = whole[:at] + struct.pack("<i", value) + whole[at + 4 :]
        with pytest.raises(OurFault, match="damaged"):
            convert_packed_e5(stored(tmp_path, lying), "small", tmp_path, Reports())


def looked_up(blob: bytes, text: bytes) -> str | None:
    """What llama.cpp finds for the longest beginning of a text, by the format's definition."""
    size = struct.unpack_from("<I", blob)[0]
    units = struct.unpack_from(f"<{size // 4}I", blob, 4)
    texts = blob[4 + size :]

    def base(unit: int) -> int:
        return (unit >> 10) << ((unit & 512) >> 6)

    at, found = base(units[0]), None
    for byte in text:
        at ^= byte
        if at >= len(units) or units[at] & (1 << 31 | 0xFF) != byte:
            break
        leaf = units[at] & 256
        at ^= base(units[at])
        if leaf:
            begin = units[at] & (2**31 - 1)
            found = texts[begin : texts.index(0, begin)].decode()
    return found


CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])


@given(st.dictionaries(CHARACTERS, st.text(CHARACTERS, max_size=3), max_size=60), CHARACTERS)
def test_each_character_has_its_own_normal_form(forms: dict[str, str], other: str) -> None:
    blob = charsmap({ord(sign): form for sign, form in forms.items()})
    for sign, form in forms.items():
        assert looked_up(blob, sign.encode()) == form
    assert looked_up(blob, other.encode()) == forms.get(other)


def test_a_normal_form_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="zero byte"):
        charsmap({65: "a\0b"})
