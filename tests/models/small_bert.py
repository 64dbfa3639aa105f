"""An archive with an embedding model of a few thousand weights, and its vectors by numpy."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

WIDTH, INNER, HEADS, LAYERS, PLACES = 64, 128, 2, 2, 32
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("a", "cat", "dog", "sits", "##s", "on", "the", "mat", "##ting", ".", "caf", "##e")
VOCABULARY = (*SPECIAL, *WORDS)

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "max_position_embeddings": PLACES,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "type_vocab_size": 2,
    "vocab_size": len(VOCABULARY),
    "layer_norm_eps": 1e-12,
}
POOLING: dict[str, Any] = {"pooling_mode_mean_tokens": True}
TOKENIZER: dict[str, Any] = {
    "model": {"type": "WordPiece", "vocab": {text: n for n, text in enumerate(VOCABULARY)}},
    "normalizer": {"type": "BertNormalizer", "lowercase": True},
    "added_tokens": [{"id": n, "content": t, "special": True} for n, t in enumerate(SPECIAL)],
}


def weights(seed: int = 1) -> dict[str, npt.NDArray[np.float32]]:
    """All tensors, by the names they are published under."""
    chance = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), WIDTH),
        "embeddings.position_embeddings.weight": (PLACES, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
        "pooler.dense.weight": (WIDTH, WIDTH),
    }
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{at}attention.{name}.weight"] = (WIDTH, WIDTH)
            shapes[f"{at}attention.{name}.bias"] = (WIDTH,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{at}{name}.weight"] = shapes[f"{at}{name}.bias"] = (WIDTH,)
        shapes[f"{at}intermediate.dense.weight"] = (INNER, WIDTH)
        shapes[f"{at}intermediate.dense.bias"] = (INNER,)
        shapes[f"{at}output.dense.weight"] = (WIDTH, INNER)
        shapes[f"{at}output.dense.bias"] = (WIDTH,)
    made = {n: chance.normal(0, 0.3, shape).astype(np.float32) for n, shape in shapes.items()}
    for name in made:
        if name.endswith("LayerNorm.weight"):
            made[name] += 1
    return made


def safetensors(tensors: dict[str, npt.NDArray[Any]], dtype: str = "F32") -> bytes:
    """Tensors as a file."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in tensors.items():
        end = len(body) + tensor.nbytes
        entries[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [len(body), end],
        }
        body += tensor.tobytes()
    head = json.dumps(entries).encode()
    return struct.pack("<Q", len(head)) + head + body


def archive(
    *,
    config: dict[str, Any] | None = None,
    pooling: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
    tensors: bytes | None = None,
    without: str = "",
) -> bytes:
    """The archive, with parts replaced or one left out."""
    members = {
        "config.json": json.dumps(config or CONFIG).encode(),
        "1_Pooling/config.json": json.dumps(pooling or POOLING).encode(),
        "tokenizer.json": json.dumps(tokenizer or TOKENIZER).encode(),
        "model.safetensors": safetensors(weights()) if tensors is None else tensors,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            if name != without:
                opened.writestr(name, content)
    return buffer.getvalue()


def vector(w: dict[str, npt.NDArray[np.float32]], tokens: list[int]) -> Array:
    """The mean vector of `tokens`, computed in 64 bits by the model's definition."""
    x = w["embeddings.word_embeddings.weight"][tokens].astype(np.float64)
    x = x + w["embeddings.position_embeddings.weight"][: len(tokens)]
    x = x + w["embeddings.token_type_embeddings.weight"][0]
    x = _norm(w, "embeddings.LayerNorm", x)
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        q, k, v = (
            _linear(w, f"{at}attention.self.{part}", x).reshape(len(tokens), HEADS, -1)
            for part in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(WIDTH / HEADS)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", scores, v).reshape(len(tokens), WIDTH)
        mixed = _linear(w, f"{at}attention.output.dense", mixed)
        x = _norm(w, f"{at}attention.output.LayerNorm", x + mixed)
        inner = _linear(w, f"{at}intermediate.dense", x)
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = _norm(w, f"{at}output.LayerNorm", x + _linear(w, f"{at}output.dense", inner))
    mean: Array = x.mean(axis=0)
    return mean


def _linear(w: dict[str, npt.NDArray[np.float32]], name: str, x: Array) -> Array:
    result: Array = x @ w[f"{name}.weight"].T.astype(np.float64) + w[f"{name}.bias"]
    return result


def _norm(w: dict[str, npt.NDArray[np.float32]], name: str, x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    result: Array = scaled * w[f"{name}.weight"] + w[f"{name}.bias"]
    return result
