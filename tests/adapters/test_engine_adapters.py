"""LoRA adapters in a worker: chosen by request, mixed, added and removed while it serves."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.errors import FaultCode
from meshslm.models.synthetic import ModelShape, synthesise
from meshslm.wire.messages import Sampling, TaskRequest
from tests.adapters.engine_client import EngineClient, Reply, serving
from tests.engine.small_lora import write_adapter

pytestmark = pytest.mark.model

SHAPE = ModelShape("llama", 2, 256, 512, 4, 2, 64, context=512)
OTHER = ModelShape("llama", 2, 128, 256, 2, 2, 64, context=512)
PROMPT = "The capital of France is"
LONG = "One two three four five six seven eight nine ten. " * 26
"""About 340 tokens: beyond the place from which a lone row is computed otherwise."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    """A small model without meaning, another one, and adapters for each."""
    folder = tmp_path_factory.mktemp("adapters")
    for name, shape in (("base", SHAPE), ("other", OTHER)):
        synthesise(folder / name, shape, "Q8_0", model_path, lambda _: None)
    write_adapter(folder / "first", folder / "base", seed=1)
    write_adapter(folder / "second", folder / "base", seed=2, rank=8)
    write_adapter(folder / "foreign", folder / "other", seed=3)
    write_adapter(folder / "embedding", folder / "base", targets=("token_embd.weight",))
    whole = (folder / "first").read_bytes()
    (folder / "cut").write_bytes(whole[: len(whole) // 2])
    (folder / "noise").write_bytes(b"GGUF" + bytes(range(256)) * 8)
    return folder


@pytest.fixture
async def client(folder: Path) -> AsyncIterator[EngineClient]:
    """An engine that finds an adapter by its file's name."""

    def find(name: str) -> Path | None:
        return folder / name if (folder / name).exists() else None

    spec = EngineSpec("m", folder / "base", context=512, slots=6, readable=(str(folder),))
    async with serving(EngineProcess(spec, find_adapter=find)) as client:
        yield client


def ask(
    adapter: str = "", prompt: str = PROMPT, max_tokens: int = 24, **fields: Any
) -> TaskRequest:
    fields |= {"max_tokens": max_tokens, "sampling": Sampling(temperature=0.0)}
    return TaskRequest("m", prompt=prompt, adapter=adapter, **fields)


def told(reply: Reply) -> list[tuple[int, float]]:
    """Tokens and their log-probabilities: equal only where every bit of the logits is."""
    assert reply.failed is None, reply.failed
    scores = [entry.logprob for chunk in reply.chunks for entry in chunk.logprobs]
    return list(zip(reply.tokens(), scores, strict=True))


async def test_an_adapter_changes_the_answer_and_leaves_the_base_as_it_was(
    client: EngineClient,
) -> None:
    before = told(await client.ask(ask(logprobs=0)))
    first = told(await client.ask(ask("first", logprobs=0)))
    second = told(await client.ask(ask("second", logprobs=0)))
    assert before == told(await client.ask(ask(logprobs=0))), "bit for bit"
    assert first == told(await client.ask(ask("first", logprobs=0)))
    assert len({str(answer) for answer in (before, first, second)}) == 3


@pytest.mark.parametrize("prompt", [PROMPT, LONG])
async def test_together_each_gets_what_it_gets_alone(client: EngineClient, prompt: str) -> None:
    names = ("", "first", "second")
    alone = {name: told(await client.ask(ask(name, prompt, logprobs=0))) for name in names}
    mixed = [ask(name, prompt, logprobs=0) for name in (*names, *reversed(names), *names)]
    for request, reply in zip(mixed, await client.ask_all(mixed), strict=True):
        assert told(reply) == alone[request.adapter], request.adapter


async def test_several_choices_share_a_prompt_under_an_adapter(client: EngineClient) -> None:
    single = await client.ask(ask("first"))
    double = await client.ask(ask("first", choices=2))
    assert double.tokens(0) == double.tokens(1) == single.tokens()


async def test_adapters_come_and_go_while_others_stream(client: EngineClient, folder: Path) -> None:
    alone = await client.ask(ask(max_tokens=200))
    expected = await client.ask(ask("first", max_tokens=60))
    _, running = client.start(ask(max_tokens=200))
    await client.until(lambda: len(running.tokens()) > 3)
    assert (await client.ask(ask("late"))).failed is not None
    shutil.copy(folder / "first", folder / "late")
    _, late = client.start(ask("late", max_tokens=60))
    await client.until(lambda: len(late.tokens()) > 3)
    (folder / "late").unlink()  # what runs goes on
    gone = await client.ask(ask("late"))
    assert gone.failed is not None
    assert gone.failed.code is FaultCode.UNKNOWN_MODEL
    await client.over(late)
    await client.over(running)
    assert late.tokens() == expected.tokens()
    assert running.tokens() == alone.tokens()


@pytest.mark.parametrize(
    ("name", "code", "why"),
    [
        ("nobody", FaultCode.UNKNOWN_MODEL, "there is no adapter 'nobody' here"),
        ("foreign", FaultCode.BAD_REQUEST, "foreign is an adapter for another base"),
        ("embedding", FaultCode.BAD_REQUEST, "also uses as its last matrix"),
        ("cut", FaultCode.BAD_REQUEST, "cut short"),
        ("noise", FaultCode.BAD_REQUEST, "is not a usable GGUF file"),
        ("base", FaultCode.BAD_REQUEST, "is no LoRA adapter but a GGUF file of type 'model'"),
    ],
)
async def test_what_is_no_adapter_of_this_base_is_refused(
    client: EngineClient, name: str, code: FaultCode, why: str
) -> None:
    refused = await client.ask(ask(name))
    assert refused.failed is not None
    assert refused.failed.code is code
    assert why in refused.failed.detail
    assert (await client.ask(ask())).failed is None, "the worker lives"
    assert len(client.states) == 1


async def test_every_matrix_of_a_base_may_be_changed(
    folder: Path, model_path: Path, tmp_path: Path
) -> None:
    """Also the embedding, where the base has a last matrix of its own."""
    shape = replace(SHAPE, tied=False)
    synthesise(tmp_path / "untied", shape, "Q8_0", model_path, lambda _: None)
    write_adapter(tmp_path / "all", tmp_path / "untied", targets=(".weight",), size=0.05)
    spec = EngineSpec("m", tmp_path / "untied", context=512, slots=2, readable=(str(tmp_path),))
    engine = EngineProcess(spec, find_adapter=lambda name: tmp_path / name)
    async with serving(engine) as client:
        plain, changed = await client.ask_all([ask(), ask("all")])
    assert changed.failed is None, changed.failed
    assert changed.tokens() != plain.tokens()


async def test_an_adapter_is_no_model(folder: Path) -> None:
    engine = EngineProcess(EngineSpec("m", folder / "first"))
    client = EngineClient(engine)
    await engine.run(client.post)
    assert "which needs the model that it was made for" in engine.given_up
