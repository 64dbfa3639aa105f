"""What workers do beside answering: tokens, prompts, echoes, vectors, scores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.engine.gguf import Tensor, read_encoded, read_header
from meshslm.engine.prefix_cache import TILE
from meshslm.errors import FaultCode
from meshslm.models.gguf_writer import Encoded, Meta, TensorPlan, write_gguf
from meshslm.models.synthetic import ModelShape, synthesise
from meshslm.wire.messages import ChatMessage, Sampling, TaskRequest
from tests.adapters.engine_client import EngineClient, Reply, serving
from tests.engine.small_lora import matrix

pytestmark = pytest.mark.model

GREEDY = Sampling(temperature=0.0)
CONTEXT = 256
CATS = "A cat sits on the mat."
TEXTS = (CATS, "The feline rests upon the rug.", "Stock markets fell sharply today.")

Vectors = npt.NDArray[np.float32]


def asking(operation: str, *inputs: str, prompt: str = "") -> TaskRequest:
    return TaskRequest("m", operation=operation, inputs=inputs, prompt=prompt)


# --- a model that generates -----------------------------------------------------------------------
@pytest.fixture
async def chat(model_path: Path) -> AsyncIterator[EngineClient]:
    async with serving(EngineProcess(EngineSpec("m", model_path, context=512, slots=4))) as client:
        yield client


async def test_tokens_of_texts_and_back(chat: EngineClient) -> None:
    inputs = ("Hello, wörld! 🙂", "", "<|im_end|>", "ab " * 1500)
    reply = await chat.ask(asking("tokenize", *inputs))
    assert reply.ended is not None
    tokens: dict[int, list[int]] = {}
    for chunk in reply.chunks:
        tokens.setdefault(chunk.item, []).extend(chunk.tokens)
    assert list(tokens) == [0, 1, 2, 3]
    assert reply.ended.usage.prompt_tokens == sum(map(len, tokens.values()))
    assert len(tokens[2]) > 1, "the text of a control token stays text"
    for item in (0, 1, 2):
        back = await chat.ask(TaskRequest("m", operation="detokenize", given=tuple(tokens[item])))
        assert back.text() == inputs[item]


async def test_the_prompt_of_a_conversation(chat: EngineClient) -> None:
    messages = (ChatMessage("user", "Say <|im_end|>."),)
    reply = await chat.ask(TaskRequest("m", operation="template", messages=messages))
    assert reply.text().endswith(
        "<|im_start|>user\nSay <|im_end|>.<|im_end|>\n<|im_start|>assistant\n"
    )
    answer = await chat.ask(TaskRequest("m", messages=messages, max_tokens=1))
    assert answer.ended is not None
    assert answer.ended.usage.prompt_tokens == len(reply.tokens())


@pytest.mark.parametrize("operation", ["embed", "rerank", "dance"])
async def test_a_model_that_generates_refuses_the_rest(chat: EngineClient, operation: str) -> None:
    reply = await chat.ask(asking(operation, "x", prompt="y"))
    assert reply.failed is not None
    assert reply.failed.code is FaultCode.BAD_REQUEST
    assert f"cannot do '{operation}'" in reply.failed.detail


# --- echo -----------------------------------------------------------------------------------------
def echoing(prompt: str, max_tokens: int = 3, **fields: Any) -> TaskRequest:
    fields = {"echo": True, "max_tokens": max_tokens, "sampling": GREEDY, **fields}
    return TaskRequest("m", prompt=prompt, **fields)


async def test_an_echo_precedes_the_answer(chat: EngineClient) -> None:
    prompt = "The capital of France is"
    plain = await chat.ask(echoing(prompt, echo=False))
    reply = await chat.ask(echoing(prompt, choices=2))
    for choice in (0, 1):
        assert reply.text(choice) == prompt + plain.text()
        assert reply.tokens(choice) == plain.tokens()
    assert reply.ended is not None
    assert plain.ended is not None
    assert reply.ended.usage.prompt_tokens == plain.ended.usage.prompt_tokens


async def test_an_echo_scores_every_token_of_the_prompt(chat: EngineClient) -> None:
    """Each prompt token is as likely as it is when the model is asked for it."""
    prompt = "The capital of France is Paris. The capital of Germany is Berlin."
    reply = await chat.ask(echoing(prompt, logprobs=3))
    entries = [entry for chunk in reply.chunks for entry in chunk.logprobs]
    words = [entry.raw for entry in entries]
    assert b"".join(words).decode() == reply.text()
    assert (entries[0].logprob, entries[0].top) == (0.0, ())
    for place in (3, 8, len(words) - 4):
        head = b"".join(words[:place]).decode()
        asked = await chat.ask(echoing(head, 1, echo=False, logprobs=20))
        (drawn,) = (entry for chunk in asked.chunks for entry in chunk.logprobs)
        same = {top.raw: top.logprob for top in drawn.top}
        assert entries[place].top[0].raw == drawn.raw
        assert same.get(words[place], -99.0) == pytest.approx(entries[place].logprob, abs=0.05)


async def test_a_long_echo_stops_no_stream_and_can_be_stopped(chat: EngineClient) -> None:
    long = "seven eight nine " * 60
    alone = await chat.ask(echoing("Once upon a time", 40, echo=False))
    _, stream = chat.start(echoing("Once upon a time", 40, echo=False))
    await chat.until(lambda: len(stream.tokens()) > 2)
    stopped, cut = chat.start(echoing(long, logprobs=0))
    _, scored = chat.start(echoing(long, logprobs=0))
    await chat.until(lambda: cut.chunks)
    chat.engine.stop_run(stopped)
    await chat.over(scored)
    between = scored.chunks
    assert len([c for c in between if c.logprobs and not c.tokens]) >= 180 // TILE
    await chat.over(stream)
    assert stream.tokens() == alone.tokens()
    assert cut.ended is None


async def test_a_conversation_has_no_echo(chat: EngineClient) -> None:
    messages = (ChatMessage("user", "x"),)
    reply = await chat.ask(TaskRequest("m", messages=messages, echo=True, max_tokens=2))
    assert reply.failed is not None
    assert reply.failed.code is FaultCode.BAD_REQUEST
    assert "no text to echo" in reply.failed.detail


# --- a model that makes vectors -------------------------------------------------------------------
@pytest.fixture
async def reader(embedding_path: Path) -> AsyncIterator[EngineClient]:
    spec = EngineSpec("m", embedding_path, context=CONTEXT, slots=8)
    async with serving(EngineProcess(spec)) as client:
        yield client


def vectors(reply: Reply) -> Vectors:
    assert reply.failed is None, reply.failed
    chunks = sorted(reply.chunks, key=lambda chunk: chunk.item)
    assert [chunk.item for chunk in chunks] == list(range(len(chunks)))
    return np.array([np.frombuffer(chunk.vector, "<f4") for chunk in chunks])


async def test_vectors_have_length_one_and_mean_something(reader: EngineClient) -> None:
    reply = await reader.ask(asking("embed", *TEXTS))
    found = vectors(reply)
    assert found.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    near, far = float(found[0] @ found[1]), float(found[0] @ found[2])
    assert near > far + 0.2
    assert reply.ended is not None
    counted = await reader.ask(asking("tokenize", *TEXTS))
    assert counted.ended is not None
    assert reply.ended.usage.prompt_tokens == counted.ended.usage.prompt_tokens


async def test_a_text_has_its_vector_in_any_company(reader: EngineClient) -> None:
    inputs = [f"Sentence number {n}" + " and so on" * (n % 17) for n in range(150)]
    many = vectors(await reader.ask(asking("embed", *inputs)))
    for place in (0, 75, 149):
        (alone,) = vectors(await reader.ask(asking("embed", inputs[place])))
        assert float(alone @ many[place]) > 0.9995
    together = await reader.ask_all([asking("embed", text) for text in inputs[:20]])
    for place, reply in enumerate(together):
        assert float(vectors(reply)[0] @ many[place]) > 0.9995


async def test_documents_are_ranked_by_nearness(reader: EngineClient) -> None:
    reply = await reader.ask(asking("rerank", *reversed(TEXTS), prompt="Where is the cat?"))
    scores = {chunk.item: chunk.score for chunk in reply.chunks}
    assert sorted(scores) == [0, 1, 2]
    assert min(scores[1], scores[2]) > scores[0] + 0.2
    assert all(-1.0 <= score <= 1.0 for score in scores.values())


async def test_a_stopped_request_leaves_the_others(reader: EngineClient) -> None:
    run, stopped = reader.start(asking("embed", *(TEXTS[0],) * 1000))
    await reader.until(lambda: stopped.chunks)
    reader.engine.stop_run(run)
    assert vectors(await reader.ask(asking("embed", *TEXTS))).shape == (3, 384)
    assert stopped.ended is None


async def test_tokens_are_taken_in_the_place_of_a_text(reader: EngineClient) -> None:
    tokens = tuple((await reader.ask(asking("tokenize", CATS))).tokens())
    (of_tokens,) = vectors(await reader.ask(TaskRequest("m", operation="embed", given=tokens)))
    (of_text,) = vectors(await reader.ask(asking("embed", CATS)))
    np.testing.assert_allclose(of_tokens, of_text, atol=1e-5)


TOO_LONG = "word " * 300


@pytest.mark.parametrize(
    ("request_", "code", "why"),
    [
        (TaskRequest("m", prompt="x"), FaultCode.BAD_REQUEST, "it cannot do 'generate'"),
        (asking("template"), FaultCode.BAD_REQUEST, "it cannot do 'template'"),
        (asking("embed"), FaultCode.BAD_REQUEST, "at least one text"),
        (
            TaskRequest("m", operation="embed", given=(2**30,)),
            FaultCode.BAD_REQUEST,
            f"token {2**30} does not exist",
        ),
        (
            TaskRequest("m", operation="embed", given=(5,) * 300),
            FaultCode.CONTEXT_OVERFLOW,
            "300 tokens",
        ),
        (asking("rerank", prompt="x"), FaultCode.BAD_REQUEST, "at least one text"),
        (
            asking("embed", "x", TOO_LONG),
            FaultCode.CONTEXT_OVERFLOW,
            f"text 1 has 302 tokens, but this model reads {CONTEXT} at most",
        ),
        (
            asking("rerank", "x", prompt=TOO_LONG),
            FaultCode.CONTEXT_OVERFLOW,
            "text 0 has 302 tokens",
        ),
        (
            TaskRequest("m", operation="embed", inputs=("x",), adapter="mine"),
            FaultCode.BAD_REQUEST,
            "takes no adapters",
        ),
    ],
)
async def test_bad_requests_are_refused_with_the_numbers(
    reader: EngineClient, request_: TaskRequest, code: FaultCode, why: str
) -> None:
    reply = await reader.ask(request_)
    assert reply.failed is not None
    assert reply.failed.code is code
    assert why in reply.failed.detail
    assert not reply.chunks


# --- a model that scores pairs --------------------------------------------------------------------
@pytest.fixture(scope="module")
def ranker_path(tmp_path_factory: pytest.TempPathFactory, embedding_path: Path) -> Path:
    """A small model with a ranking head, of random weights."""
    folder = tmp_path_factory.mktemp("ranker")
    shape = ModelShape("bert", 2, 64, 128, 2, 2, 32, context=128)
    synthesise(folder / "body", shape, "F16", embedding_path, lambda _: None)
    header = read_header(folder / "body")
    body = (folder / "body").read_bytes()

    def stored(tensor: Tensor) -> TensorPlan:
        content = body[tensor.offset : tensor.offset + tensor.nbytes]
        return TensorPlan(tensor.name, tensor.shape, tensor.type, lambda: [content])

    plans = [stored(tensor) for tensor in header.tensors]
    chance = np.random.default_rng(1)
    plans += [
        matrix("cls.weight", (64, 64), chance, 0.3),
        matrix("cls.bias", (64,), chance, 0.3),
        matrix("cls.output.weight", (64, 1), chance, 1.0),
        matrix("cls.output.bias", (1,), chance, 0.3),
    ]
    written = read_encoded(folder / "body", "")
    metadata: dict[str, Meta] = {key: Encoded(raw) for key, raw in written.items()}
    metadata["bert.pooling_type"] = 4
    with (folder / "ranker").open("wb") as file:
        write_gguf(file.write, metadata, plans)
    return folder / "ranker"


async def test_a_ranking_head_scores_pairs(ranker_path: Path) -> None:
    spec = EngineSpec("m", ranker_path, context=128, slots=4)
    async with serving(EngineProcess(spec)) as client:
        reply = await client.ask(asking("rerank", *TEXTS, prompt="a cat"))
        scores = {chunk.item: chunk.score for chunk in reply.chunks}
        assert len(set(scores.values())) == 3
        assert all(0.0 < score < 1.0 for score in scores.values())
        turned = await client.ask(asking("rerank", *reversed(TEXTS), prompt="a cat"))
        for chunk in turned.chunks:
            assert chunk.score == pytest.approx(scores[2 - chunk.item], abs=1e-3)
        other = await client.ask(asking("rerank", *TEXTS, prompt="a market"))
        assert {chunk.item: chunk.score for chunk in other.chunks} != scores
        refused = await client.ask(asking("embed", "x"))
        assert refused.failed is not None
        assert "this model makes scores of pairs of texts" in refused.failed.detail
