"""How many layers go to a GPU: never more than fit, and never fewer than could."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine import llama, llama_devices, loading
from meshslm.engine.estimate import estimate
from meshslm.engine.gguf import GgufHeader, LongArray, Tensor, Value
from meshslm.engine.offload import RESERVE_MIB, plan
from meshslm.engine.protocol import Load
from meshslm.limits import MIB

LAYERS = 10


def header(*, tied: bool = True, architecture: str = "llama") -> GgufHeader:
    """Layers of 20 MiB, and 100 MiB at the begin and, unless it is tied, the end."""
    names = {"token_embd.weight": 100, **{f"blk.{n}.ffn_up.weight": 20 for n in range(LAYERS)}}
    if not tied:
        names["output.weight"] = 100
    tensors = tuple(Tensor(name, (32,), "F32", 0, size * MIB) for name, size in names.items())
    metadata: dict[str, Value] = {
        "general.architecture": architecture,
        f"{architecture}.block_count": LAYERS,
        f"{architecture}.embedding_length": 512,
        f"{architecture}.feed_forward_length": 1024,
        f"{architecture}.attention.head_count": 8,
        "tokenizer.ggml.tokens": LongArray(8, 1000),
    }
    return GgufHeader(3, metadata, tensors, 0)


def test_without_a_gpu_nothing_goes_there() -> None:
    found = plan(header(), 0, 2048, 4, 512)
    assert (found.layers, found.of, found.needed_mib) == (0, LAYERS + 1, 0)
    assert "no GPU" in found.why


def test_a_large_gpu_takes_everything() -> None:
    found = plan(header(), 100_000, 2048, 4, 512)
    assert (found.layers, found.why) == (LAYERS + 1, "")
    whole = estimate(header(), 2048, 4, 512)
    assert whole.kv_mib
    assert whole.compute_mib
    wanted = whole.weights_mib + whole.kv_mib + whole.compute_mib + RESERVE_MIB
    assert found.needed_mib == pytest.approx(wanted)
    untied = plan(header(tied=False), 100_000, 2048, 4, 512)
    assert untied.needed_mib == pytest.approx(wanted)  # the begin stays with the CPU


def test_what_is_not_known_stays_with_the_cpu() -> None:
    found = plan(header(architecture="mamba"), 100_000, 2048, 4, 512)
    assert found.layers == 0
    assert "mamba" in found.why


@given(st.floats(1, 2000), st.integers(64, 4096), st.integers(1, 8))
def test_as_many_as_fit(free: float, context: int, slots: int) -> None:
    found = plan(header(), free, context, slots, 256)
    assert found.needed_mib <= free
    assert 0 <= found.layers <= found.of
    assert bool(found.why) == (found.layers < found.of)
    more = plan(header(), free + 1000, context, slots, 256)
    assert more.layers >= found.layers
    if 0 < found.layers < found.of:
        kv = estimate(header(), context, slots, 256).kv_mib
        assert kv is not None
        assert found.needed_mib + 20 + kv / LAYERS > free  # the next layer does not fit


def test_what_the_worker_is_told_and_what_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    told, free = Load("x", 2048, 4, 512, None, gpu_layers=5), Load("x", 2048, 4, 512, None)
    if not llama.offloads():
        assert loading.layers_on_gpu(told, header()) == 0
    monkeypatch.setattr(loading, "offloads", lambda: True)
    assert loading.layers_on_gpu(told, header()) == 5
    monkeypatch.setattr(llama_devices, "gpu_free_mib", lambda: 100_000)
    assert loading.layers_on_gpu(free, header()) == LAYERS + 1
    monkeypatch.setattr(llama_devices, "gpu_free_mib", lambda: 0)
    assert loading.layers_on_gpu(free, header()) == 0
