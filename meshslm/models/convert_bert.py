"""Makes a GGUF file of an embedding model of the BERT family, as other programs take it.

The archive holds config.json, tokenizer.json, 1_Pooling/config.json and model.safetensors.

Rules:
- Only what llama.cpp computes in the same way is converted: absolute positions, GELU, a lower-case
  WordPiece vocabulary, the mean or the first token as the text's vector. All else is an `OurFault`.
- Matrices become F16, vectors and positions stay F32: like the files that llama.cpp's own tools
  make. Nothing depends on the machine: the same archive gives the same file.
- What needs no weights (the layer behind the first token) is left out.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from meshslm import __version__
from meshslm.errors import OurFault
from meshslm.models.disk import CHUNK_BYTES, DiskFile, need_space
from meshslm.models.gguf_writer import Meta as MetaValue
from meshslm.models.gguf_writer import TensorPlan, file_size, write_gguf
from meshslm.models.progress import Progress, Report, Stage
from meshslm.models.safetensors import StoredTensor, read_safetensors
from meshslm.models.sources import Fetched

CONVERTED_BY: Final = f"meshslm {__version__}, BERT to GGUF"
TEXT_BYTES: Final = 32 * 1024 * 1024
"""One of the JSON files; a vocabulary of 250,000 tokens takes 17 MB."""
WEIGHT_BYTES: Final = 8 * 1024**3
"""The largest BERT that is published has 1.3 GB."""

Width = Annotated[int, Meta(ge=1, le=65_536)]


class _Config(msgspec.Struct, frozen=True):
    model_type: Literal["bert"]
    hidden_act: Literal["gelu"]
    hidden_size: Width
    intermediate_size: Width
    max_position_embeddings: Width
    num_attention_heads: Width
    num_hidden_layers: Annotated[int, Meta(ge=1, le=256)]
    type_vocab_size: Annotated[int, Meta(ge=1, le=16)]
    vocab_size: Annotated[int, Meta(ge=1, le=1_000_000)]
    layer_norm_eps: Annotated[float, Meta(gt=0, lt=1)]
    position_embedding_type: Literal["absolute"] = "absolute"


class _Pooling(msgspec.Struct, frozen=True):
    pooling_mode_mean_tokens: bool = False
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False


class _AddedToken(msgspec.Struct, frozen=True):
    id: int
    content: str
    special: bool = False


class _Normalizer(msgspec.Struct, frozen=True):
    type: Literal["BertNormalizer"]
    lowercase: Literal[True]


class _WordPiece(msgspec.Struct, frozen=True):
    type: Literal["WordPiece"]
    vocab: dict[str, int]
    continuing_subword_prefix: Literal["##"] = "##"


class _Tokenizer(msgspec.Struct, frozen=True):
    model: _WordPiece
    normalizer: _Normalizer
    added_tokens: tuple[_AddedToken, ...] = ()


_NORMAL, _CONTROL = 1, 3
_SPECIAL: Final = {
    "unknown": "[UNK]",
    "seperator": "[SEP]",  # spelt so in the format
    "padding": "[PAD]",
    "cls": "[CLS]",
    "bos": "[CLS]",  # what llama.cpp begins a text with
    "mask": "[MASK]",
}
_OUTER: Final = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
_LAYER: Final = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_KEPT_F32: Final = ("position_embd.weight", "token_types.weight")


def is_archive(path: Path) -> bool:
    """Whether a file that was fetched is an archive, and so to be converted."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def convert_archive(archive: Path, name: str, stage: Path, report: Report) -> Fetched:
    """Convert `archive` to a GGUF file in the folder `stage`. Raises `OurFault`."""
    weights, target = stage / "weights", stage / "converted.gguf"
    try:
        with zipfile.ZipFile(archive) as opened:
            config = _json(opened, "config.json", _Config)
            pooling = _json(opened, "1_Pooling/config.json", _Pooling)
            tokenizer = _json(opened, "tokenizer.json", _Tokenizer)
            _extract(opened, "model.safetensors", weights, report)
        metadata = _metadata(config, pooling, tokenizer)
        tensors = _plans(config, read_safetensors(weights))
        size = file_size(metadata, tensors)
        need_space(stage, size, "the converted model")
        with DiskFile(target, most=size + CHUNK_BYTES) as file:

            def write(chunk: bytes) -> None:
                file.write(chunk)
                report(Progress(Stage.CONVERTING, file.size, size))

            write_gguf(write, metadata, tensors)
            return Fetched(target, file.digest, file.size)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise OurFault(f"{name}: the archive is damaged ({error}); pull it again") from error
    finally:
        weights.unlink(missing_ok=True)


_Kind = TypeVar("_Kind", bound=msgspec.Struct)


def _json(archive: zipfile.ZipFile, member: str, kind: type[_Kind]) -> _Kind:
    try:
        if archive.getinfo(member).file_size > TEXT_BYTES:
            raise OurFault(f"{member} has more than {TEXT_BYTES} bytes")
        return msgspec.json.decode(archive.read(member), type=kind)
    except KeyError:
        raise OurFault(
            f"the archive has no {member}: a model of the BERT family was expected, as it is "
            "published for sentence-transformers"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OurFault(f"this model cannot be converted: {member}: {error}") from None


def _extract(archive: zipfile.ZipFile, member: str, target: Path, report: Report) -> None:
    try:
        size = archive.getinfo(member).file_size
    except KeyError:
        raise OurFault(f"the archive has no {member}") from None
    if size > WEIGHT_BYTES:
        raise OurFault(f"{member} has {size} bytes, at most {WEIGHT_BYTES}")
    need_space(target.parent, size, member)
    with archive.open(member) as source, DiskFile(target, most=size) as file:
        while chunk := source.read(CHUNK_BYTES):
            file.write(chunk)
            report(Progress(Stage.UNPACKING, file.size, size))


def _metadata(config: _Config, pooling: _Pooling, tokenizer: _Tokenizer) -> Mapping[str, MetaValue]:
    match pooling:
        case _Pooling(True, False, False, False):
            pooling_type = 1
        case _Pooling(False, True, False, False):
            pooling_type = 2
        case _:
            raise OurFault("this model cannot be converted: only the mean or the first token pools")
    if config.hidden_size % config.num_attention_heads:
        raise OurFault(
            f"config.json: {config.num_attention_heads} heads do not divide a width of "
            f"{config.hidden_size}"
        )
    tokens = _tokens(config, tokenizer)
    special = {token.id for token in tokenizer.added_tokens if token.special}
    return {
        "general.architecture": "bert",
        "general.type": "model",
        "general.file_type": 1,
        "general.quantization_version": 2,
        "bert.block_count": config.num_hidden_layers,
        "bert.context_length": config.max_position_embeddings,
        "bert.embedding_length": config.hidden_size,
        "bert.feed_forward_length": config.intermediate_size,
        "bert.attention.head_count": config.num_attention_heads,
        "bert.attention.layer_norm_epsilon": config.layer_norm_eps,
        "bert.attention.causal": False,
        "bert.pooling_type": pooling_type,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.token_type_count": config.type_vocab_size,
        "tokenizer.ggml.tokens": [
            text if number in special else _spaced(text) for number, text in enumerate(tokens)
        ],
        "tokenizer.ggml.token_type": [
            _CONTROL if number in special else _NORMAL for number in range(len(tokens))
        ],
        **_special_ids(tokens),
    }


def _spaced(token: str) -> str:
    """llama.cpp marks what begins a word, the archive what goes on with one."""
    return token[2:] if token.startswith("##") else "\u2581" + token


def _special_ids(tokens: Sequence[str]) -> Mapping[str, int]:
    places = {text: number for number, text in enumerate(tokens)}
    missing = [text for text in _SPECIAL.values() if text not in places]
    if missing:
        raise OurFault(f"tokenizer.json has no token {', '.join(missing)}")
    return {f"tokenizer.ggml.{key}_token_id": places[text] for key, text in _SPECIAL.items()}


def _tokens(config: _Config, tokenizer: _Tokenizer) -> Sequence[str]:
    """The vocabulary in order of its numbers, none left out."""
    tokens = [""] * config.vocab_size
    for text, number in tokenizer.model.vocab.items():
        if not 0 <= number < config.vocab_size or tokens[number] or not text:
            raise OurFault(f"tokenizer.json: token {text[:50]!r} has the number {number}")
        tokens[number] = text
    if len(tokenizer.model.vocab) != config.vocab_size:
        raise OurFault(
            f"tokenizer.json has {len(tokenizer.model.vocab)} tokens, config.json says "
            f"{config.vocab_size}"
        )
    return tokens


def _plans(config: _Config, stored: Mapping[str, StoredTensor]) -> Sequence[TensorPlan]:
    wide, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    rows = (config.vocab_size, config.max_position_embeddings, config.type_vocab_size)
    for (source, target), count in zip(_OUTER.items(), (*rows, 0, 0), strict=True):
        shapes[source] = (target, (count, wide) if count else (wide,))
    for layer in range(config.num_hidden_layers):
        for source, target in _LAYER.items():
            outputs = inner if target == "ffn_up" else wide
            inputs = inner if target == "ffn_down" else wide
            at, name = f"encoder.layer.{layer}.{source}", f"blk.{layer}.{target}"
            matrix = (outputs,) if source.endswith("LayerNorm") else (outputs, inputs)
            shapes[f"{at}.weight"] = (f"{name}.weight", matrix)
            shapes[f"{at}.bias"] = (f"{name}.bias", (outputs,))
    return [_plan(stored, source, *wanted) for source, wanted in shapes.items()]


def _plan(
    stored: Mapping[str, StoredTensor], source: str, name: str, shape: tuple[int, ...]
) -> TensorPlan:
    tensor = stored.get(source) or stored.get(f"bert.{source}")
    if tensor is None:
        raise OurFault(f"model.safetensors has no tensor {source}")
    if tensor.shape != shape:
        raise OurFault(
            f"model.safetensors: {source} has shape {tensor.shape[:4]}, expected {shape}"
        )
    half = len(shape) == 2 and name not in _KEPT_F32
    return TensorPlan(name, shape[::-1], "F16" if half else "F32", _packed(tensor, half=half))


def _packed(tensor: StoredTensor, *, half: bool) -> Callable[[], Iterator[bytes]]:
    code = "e" if half else "f"

    def data() -> Iterator[bytes]:
        for numbers in tensor.floats():
            try:
                yield struct.pack(f"<{len(numbers)}{code}", *numbers)
            except OverflowError:
                raise OurFault("model.safetensors has weights too large for F16") from None

    return data
