"""A real worker at its limits: files that it must refuse, and memory that runs out."""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import trio

from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.core.events import EngineLost
from meshslm.engine.spare import RESERVE_MIB
from meshslm.errors import FaultCode
from meshslm.limits import MIB
from meshslm.models.gguf_writer import Encoded, Meta, TensorPlan, write_gguf
from meshslm.wire.messages import TaskRequest
from tests.adapters.engine_client import EngineClient, private_bytes, serving

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


@pytest.mark.model
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process's memory")
async def test_a_prompt_that_there_is_no_memory_to_score_is_refused_alone(model_path: Path) -> None:
    engine = EngineProcess(EngineSpec("m", model_path, context=512, slots=1))
    echoed = TaskRequest("m", prompt="one two " * 100, max_tokens=2, echo=True, logprobs=0)
    async with serving(engine) as client:
        assert (await client.ask(replace(echoed, prompt="one two"))).ended
        pid = engine.pid
        assert pid is not None
        most = private_bytes(pid) + (RESERVE_MIB + 8) * MIB
        psutil.Process(pid).rlimit(psutil.RLIMIT_DATA, (most, most))
        refused = (await client.ask(echoed)).failed
        assert refused is not None
        assert refused.code is FaultCode.OVERLOADED
        assert "of a prompt needs" in refused.detail
        assert (await client.ask(replace(echoed, echo=False, logprobs=None))).ended
        assert engine.pid == pid
