"""A real worker at its limits: files that it must refuse, and memory that runs out."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.core.events import EngineLost
from meshslm.models.gguf_writer import Encoded, Meta, TensorPlan, write_gguf
from tests.adapters.engine_client import EngineClient

FORGED: Mapping[str, Meta] = {
    "llama.block_count": 513,
    "llama.expert_count": Encoded(struct.pack("<IQ", 10, 2**63)),
    "llama.attention.layer_norm_rms_epsilon": -1.0,
    "tokenizer.ggml.tokens": ["a", "b", "a"],
}
"""Each ends llama.cpp's process, or has it compute nonsense."""


@pytest.mark.parametrize("key", FORGED)
async def test_a_forged_file_is_refused_before_llama_cpp_sees_it(tmp_path: Path, key: str) -> None:
    path = tmp_path / "forged.gguf"
    plan = TensorPlan("output.weight", (32,), "F32", lambda: [bytes(128)])
    with path.open("wb") as file:
        write_gguf(file.write, {"general.architecture": "llama", key: FORGED[key]}, [plan])
    client = EngineClient(EngineProcess(EngineSpec("m", path)))
    with trio.fail_after(60):
        await client.engine.run(client.post)
    (lost,) = client.states
    assert isinstance(lost, EngineLost)
    assert lost.final
    assert "forged.gguf is not a usable model" in lost.reason
