"""Headers of model files: what they say, and everything that may be wrong with them."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.gguf import LongArray, read_header
from meshslm.engine.gguf_types import TENSOR_TYPES
from meshslm.errors import OurFault


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, items: list[bytes], count: int | None = None) -> bytes:
    return struct.pack("<IQ", kind, len(items) if count is None else count) + b"".join(items)


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    head = text(name) + struct.pack("<I", len(shape))
    return head + struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset)


ENTRIES = [
    entry("general.architecture", 8, text("llama")),
    entry("general.name", 8, text("Tiny")),
    entry("general.file_type", 4, struct.pack("<I", 7)),
    entry("llama.context_length", 4, struct.pack("<I", 2048)),
    entry("tokenizer.ggml.tokens", 9, array(8, [text(f"t{n}") for n in range(100)])),
    entry("tokenizer.ggml.scores", 9, array(6, [struct.pack("<f", n) for n in range(100)])),
    entry("general.languages", 9, array(8, [text("en"), text("de")])),
    entry("tokenizer.chat_template", 8, text("{{ x }}")),
]
TENSORS = [tensor("a", (64, 2), 8, 0), tensor("b", (3,), 0, 160)]


def file(
    entries: list[bytes] = ENTRIES,
    tensors: list[bytes] = TENSORS,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    data: int = 172,
) -> bytes:
    found = counts or (len(tensors), len(entries))
    head = magic + struct.pack("<IQQ", version, *found) + b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def test_what_it_says(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, file()))
    assert header.version == 3
    assert (header.architecture, header.name, header.quantisation) == ("llama", "Tiny", "Q8_0")
    assert (header.context_length, header.vocabulary, header.parameters) == (2048, 100, 131)
    assert header.chat_template == "{{ x }}"
    assert header.metadata["general.languages"] == ("en", "de")
    assert header.metadata["tokenizer.ggml.tokens"] == LongArray(8, 100)
    first, second = header.tensors
    assert (first.name, first.shape, first.type, first.nbytes) == ("a", (64, 2), "Q8_0", 136)
    assert (second.type, second.nbytes, second.offset - first.offset) == ("F32", 12, 160)
    assert second.offset + second.nbytes == header.file_size


def test_the_quantisation_of_a_file_that_does_not_say(tmp_path: Path) -> None:
    entries = [one for one in ENTRIES if b"file_type" not in one]
    assert read_header(write(tmp_path, file(entries))).quantisation == "Q8_0"


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 bytes"),
    "another format": (file(magic=b"PK\x03\x04"), "begins with"),
    "old": (file(version=1), "version 1"),
    "big-endian": (file(version=3 << 24), "big-endian"),
    "tensors without end": (file(counts=(2**60, 8)), "tensors, at most"),
    "entries without end": (file(counts=(2, 2**60)), "entries, at most"),
    "more entries than there are": (file(counts=(2, 9)), "model.gguf"),
    "a text without end": (
        file([text("k") + struct.pack("<IQ", 8, 2**62)]), "bytes, at most"
    ),
    "a text past the end": (
        file([text("k") + struct.pack("<IQ", 8, 500_000)]), "cut short"
    ),
    "an array without end": (file([entry("k", 9, array(8, [], 2**62))]), "at most"),
    "an array past the end": (file([entry("k", 9, array(4, [], 100_000))]), "cut short"),
    "texts past the end": (file([entry("k", 9, array(8, [], 100_000))]), "cut short|at most"),
    "an array of arrays": (file([entry("k", 9, array(9, [], 1))]), "unknown type 9"),
    "an unknown type": (file([entry("k", 77, b"")]), "unknown type 77"),
    "a key twice": (file([ENTRIES[0], ENTRIES[0]]), "twice"),
    "a key that is no text": (
        file([text(b"\xff\xfe") + struct.pack("<II", 4, 1)]), "not UTF-8"
    ),
    "no alignment": (
        file([entry("general.alignment", 4, struct.pack("<I", 0))]), "alignment"
    ),
    "an odd alignment": (
        file([entry("general.alignment", 4, struct.pack("<I", 48))]), "alignment"
    ),
    "a boolean alignment": (
        file([entry("general.alignment", 7, b"\x01")]), "alignment"
    ),
    "no dimensions": (file(tensors=[tensor("a", (), 0, 0)]), "0 dimensions"),
    "many dimensions": (file(tensors=[tensor("a", (1,) * 5, 0, 0)]), "5 dimensions"),
    "an empty shape": (file(tensors=[tensor("a", (0, 4), 0, 0)]), "impossible shape"),
    "an overflowing shape": (
        file(tensors=[tensor("a", (2**33, 2**33), 0, 0)]), "impossible shape"
    ),
    "half a block": (file(tensors=[tensor("a", (33,), 8, 0)]), "multiple of 32"),
    "an unknown tensor type": (file(tensors=[tensor("a", (32,), 99, 0)]), "unknown type 99"),
    "a removed tensor type": (file(tensors=[tensor("a", (32,), 4, 0)]), "unknown type 4"),
    "a tensor elsewhere": (file(tensors=[tensor("a", (32,), 0, 64)]), "expected 0"),
    "overlapping tensors": (
        file(tensors=[tensor("a", (32,), 0, 0), tensor("b", (32,), 0, 0)]), "expected 128"
    ),
    "a tensor twice": (
        file(tensors=[tensor("a", (32,), 0, 0), tensor("a", (32,), 0, 128)]), "same name"
    ),
    "a long tensor name": (file(tensors=[tensor("n" * 64, (32,), 0, 0)]), "at most 63"),
    "cut short": (file(data=171), "cut short"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told(tmp_path: Path, name: str) -> None:
    content, why = BAD[name]
    with pytest.raises(OurFault, match=why) as caught:
        read_header(write(tmp_path, content))
    assert "model.gguf" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OurFault, match="cannot read the model file"):
        read_header(tmp_path / "none.gguf")


@given(st.integers(0, len(file()) - 1))
def test_cut_anywhere_is_our_fault(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = write(tmp_path_factory.mktemp("cut"), file()[:length])
    with pytest.raises(OurFault):
        read_header(path)


@given(st.lists(st.tuples(st.integers(0, len(file()) - 173), st.integers(0, 255)), max_size=8))
def test_garbage_is_read_or_our_fault(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(file())
    for place, value in changes:
        content[place] = value
    try:
        header = read_header(write(tmp_path_factory.mktemp("garbage"), bytes(content)))
    except OurFault:
        return
    assert all(tensor.offset + tensor.nbytes <= header.file_size for tensor in header.tensors)


def test_tensor_types_are_the_library_s() -> None:
    from llama_cpp import _ggml

    library = _ggml.libggml
    library.ggml_type_name.restype = ctypes.c_char_p
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    for number, (name, block, size) in TENSOR_TYPES.items():
        assert library.ggml_type_name(number).decode().upper() == name
        assert (library.ggml_blck_size(number), library.ggml_type_size(number)) == (block, size)


@pytest.mark.model
def test_a_real_model(model_path: Path) -> None:
    header = read_header(model_path)
    assert header.architecture == "llama"
    assert header.quantisation == "Q8_0"
    assert header.vocabulary == 49152
    assert "im_start" in header.chat_template
    last = header.tensors[-1]
    assert header.file_size - 32 < last.offset + last.nbytes <= header.file_size
