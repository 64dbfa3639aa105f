"""Vectors, scores, tokens and prompts over HTTP."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from struct import pack, unpack
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.errors import RequestFault
from meshslm.gateway.operations import shortened
from meshslm.ids import TaskId
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import TaskRequest, TaskSubmit
from meshslm.wire.tokens import unpacked
from tests.gateway.scripted_service import Step, chunk, finished, route
from tests.gateway.served import Served
from tests.gateway.test_gateway_openai import with_client


async def post(served: Served, path: str, **fields: Any) -> Any:
    response = await served.http.post(path, json={"model": "auto", **fields})
    return response.json() if response.status_code == 200 else response


# --- embeddings ---------------------------------------------------------------------------------
async def test_embeddings_of_texts(served: Served) -> None:
    def use(client: openai.OpenAI) -> None:
        # The package asks for base64 unless told otherwise, and decodes it.
        made = client.embeddings.create(model="auto", input=["ab", "abcd"], user="u")
        assert [item.embedding for item in made.data] == [[3.0, 4.0, 2.0], [3.0, 4.0, 4.0]]
        assert [item.index for item in made.data] == [0, 1]
        assert made.usage.prompt_tokens == made.usage.total_tokens == 7
        plain = client.embeddings.create(model="auto", input="ab", encoding_format="float")
        assert plain.data[0].embedding == [3.0, 4.0, 2.0]

    await with_client(served, use)
    first = served.service.visits[0].request
    assert (first.operation, first.inputs) == ("embed", ("ab", "abcd"))
    assert len(first.tenant) == 32


async def test_embeddings_of_tokens(served: Served) -> None:
    lists = await post(served, "/v1/embeddings", input=[[1, 2], [3]])
    assert [item["embedding"][2] for item in lists["data"]] == [2.0, 1.0]
    assert lists["usage"]["prompt_tokens"] == 14
    assert sorted(visit.request.given for visit in served.service.visits) == [(1, 2), (3,)]
    single = await post(served, "/v1/embeddings", input=[1, 2, 3])
    assert len(single["data"]) == 1
    assert served.service.visits[2].request.given == (1, 2, 3)


async def test_shorter_vectors_have_length_one(served: Served) -> None:
    made = await post(served, "/v1/embeddings", input="ab", dimensions=2)
    assert made["data"][0]["embedding"] == pytest.approx([0.6, 0.8])
    raw = await post(served, "/v1/embeddings", input="ab", dimensions=2, encoding_format="base64")
    numbers = unpack("<2f", base64.b64decode(raw["data"][0]["embedding"]))
    assert numbers == pytest.approx((0.6, 0.8))
    refused = await post(served, "/v1/embeddings", input="ab", dimensions=4)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "dimensions"
    assert "'dimensions' is 4, but this model's vectors have 3" in refused.text


@given(
    vector=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20),
    dimensions=st.integers(1, 25),
)
def test_a_shortened_vector(vector: list[float], dimensions: int) -> None:
    if dimensions > len(vector):
        with pytest.raises(RequestFault, match="vectors have"):
            shortened(vector, dimensions)
        return
    made = shortened(vector, dimensions)
    assert len(made) == dimensions
    length = math.hypot(*vector[:dimensions])
    if length > 1e-3:
        assert math.hypot(*made) == pytest.approx(1.0, rel=1e-4)
        assert list(made) == pytest.approx(
            [number / length for number in vector[:dimensions]], abs=1e-4
        )


@pytest.mark.parametrize(
    "vectors",
    [
        [],
        [(0, b"")],
        [(0, pack("<2f", 1, 2))],
        [(0, pack("<2f", 1, 2)), (2, pack("<2f", 1, 2))],
        [(0, b"12345"), (1, pack("<f", 1))],
        [(0, pack("<2f", math.nan, 1)), (1, pack("<2f", 1, 2))],
        [(0, pack("<2f", 1, 2)), (1, pack("<2f", math.inf, 1))],
    ],
)
async def test_vectors_that_are_none_are_not_passed_on(
    served: Served, vectors: list[tuple[int, bytes]]
) -> None:
    def script(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        for item, vector in vectors:
            yield chunk(item=item, vector=vector)
        yield finished()

    served.service.script = script
    refused = await post(served, "/v1/embeddings", input=["a", "b"])
    assert refused.status_code == 500
    assert "The answering node sent a vector" in refused.text
    text = (await served.http.get("/metrics")).text
    assert 'meshslm_tasks_total{outcome="internal"} 1.0' in text


# --- reranking ----------------------------------------------------------------------------------
async def test_the_most_relevant_documents_come_first(served: Served) -> None:
    documents = ["ab", {"text": "abcd"}, "cd", "abc"]
    made = await post(served, "/v1/rerank", query="q", documents=documents, return_documents=True)
    assert made["results"] == [
        {"index": 1, "relevance_score": 4.0, "document": {"text": "abcd"}},
        {"index": 3, "relevance_score": 3.0, "document": {"text": "abc"}},
        {"index": 0, "relevance_score": 2.0, "document": {"text": "ab"}},
        {"index": 2, "relevance_score": 2.0, "document": {"text": "cd"}},
    ]
    best = await post(served, "/v1/rerank", query="q", documents=documents, top_n=1)
    assert best["results"] == [{"index": 1, "relevance_score": 4.0}]
    assert best["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    asked = served.service.visits[0].request
    assert (asked.operation, asked.prompt) == ("rerank", "q")
    assert asked.inputs == ("ab", "abcd", "cd", "abc")


async def test_a_score_that_is_missing_is_not_made_up(served: Served) -> None:
    served.service.script = lambda _request: [route(), chunk(item=1, score=1.0), finished()]
    refused = await post(served, "/v1/rerank", query="q", documents=["a", "b"])
    assert refused.status_code == 500


# --- tokens -------------------------------------------------------------------------------------
async def test_tokens_and_back(served: Served) -> None:
    plain = await served.http.post("/tokenize", json={"content": "Hi", "add_special": True})
    assert plain.json() == {"tokens": [72, 105]}
    assert await post(served, "/detokenize", tokens=[72, 105]) == {"content": "Hi"}
    first, second = (visit.request for visit in served.service.visits)
    assert (first.operation, first.inputs, first.selector) == ("tokenize", ("Hi",), "auto")
    assert (second.operation, second.given) == ("detokenize", (72, 105))


async def test_tokens_of_a_whole_context_travel_packed(served: Served) -> None:
    tokens = [*range(limits.PACKED_TOKENS)]
    await post(served, "/detokenize", tokens=tokens)
    await post(served, "/v1/embeddings", input=[[5], tokens[:2000]])
    given, *lists = (visit.request for visit in served.service.visits)
    assert (given.given, unpacked(given.packed)) == ((), tuple(tokens))
    assert sorted((task.given, len(task.packed)) for task in lists) == [((), 8000), ((5,), 0)]
    submit = TaskSubmit(TaskId("t"), 1, "p", given, 1)
    assert decode(encode(submit)) == submit


async def test_a_conversation_as_a_prompt(served: Served) -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    tool = {"type": "function", "function": {"name": "f"}}
    made = await post(
        served, "/apply-template", messages=messages, tools=[tool], enable_thinking=False, n=3
    )
    assert made == {"prompt": "a|b"}
    asked = served.service.visits[0].request
    assert (asked.operation, asked.choices, asked.thinking) == ("template", 1, False)
    assert asked.tools[0].name == "f"


# --- what is refused ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "fields", "param", "told"),
    [
        ("/v1/embeddings", {}, "input", "Missing required"),
        ("/v1/embeddings", {"input": ""}, "input", "is empty"),
        ("/v1/embeddings", {"input": []}, "input", "is empty"),
        ("/v1/embeddings", {"input": ["a", ""]}, "input[1]", "is empty"),
        ("/v1/embeddings", {"input": [[1], []]}, "input[1]", "is empty"),
        ("/v1/embeddings", {"input": ["a", 1]}, "input", "mixes texts and tokens"),
        ("/v1/embeddings", {"input": [[1], 1]}, "input", "mixes texts and tokens"),
        ("/v1/embeddings", {"input": [[-1]]}, "input[0][0]", ">= 0"),
        ("/v1/embeddings", {"input": [["a"]]}, "input[0][0]", "got `str`"),
        ("/v1/embeddings", {"input": {"a": 1}}, "input", "got `object`"),
        ("/v1/embeddings", {"input": ["a"] * 1025}, "input", "1025 texts; at most 1024"),
        ("/v1/embeddings", {"input": [[1]] * 65}, "input", "65 lists of tokens; at most 64"),
        ("/v1/embeddings", {"input": [1] * 131073}, "input", "131073 tokens; at most 131072"),
        ("/v1/embeddings", {"input": [[1] * 131073]}, "input[0]", "length <= 131072"),
        ("/v1/embeddings", {"input": ["x" * 700_000] * 2}, "input", "1400000 bytes"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions", ">= 1"),
        ("/v1/embeddings", {"input": "a", "dimensions": 99999}, "dimensions", "<= 16384"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format", "'hex'"),
        ("/v1/embeddings", {"input": "a", "model": ""}, "model", "is empty"),
        ("/v1/embeddings", {"input": "a", "priority": "now"}, "priority", "'now'; served are"),
        ("/v1/rerank", {"query": "", "documents": ["a"]}, "query", "is empty"),
        ("/v1/rerank", {"query": "q"}, "documents", "Missing required"),
        ("/v1/rerank", {"query": "q", "documents": []}, "documents", "is empty"),
        ("/v1/rerank", {"query": "q", "documents": [""]}, "documents[0]", "is empty"),
        ("/v1/rerank", {"query": "q", "documents": [{}]}, "documents[0].text", "Missing"),
        ("/v1/rerank", {"query": "q", "documents": [5]}, "documents[0]", "got `int`"),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": 0}, "top_n", ">= 1"),
        ("/v1/rerank", {"query": "x" * 600_000, "documents": ["a"]}, "query", "600000 bytes"),
        (
            "/v1/rerank",
            {"query": "x" * 500_000, "documents": ["a" * 600_000]},
            "documents",
            "1100000 bytes together",
        ),
        ("/tokenize", {}, "content", "Missing required"),
        ("/tokenize", {"content": 5}, "content", "got `int`"),
        ("/tokenize", {"content": "x" * (2**20 + 1)}, "content", "1048577 bytes"),
        ("/tokenize", {"content": "x", "with_pieces": True}, "with_pieces", "not supported"),
        ("/tokenize", {"content": "x", "add_special": False}, "add_special", "Tokens are those"),
        ("/tokenize", {"content": "x", "parse_special": True}, "parse_special", "Tokens are"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]", "got `str`"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]", ">= 0"),
        ("/detokenize", {"tokens": [2**31 + 1]}, "tokens[0]", "<= 2147483648"),
        ("/detokenize", {"tokens": [1] * 131073}, "tokens", "131073 tokens; at most 131072"),
        ("/apply-template", {"messages": []}, "messages", "is empty"),
        ("/apply-template", {"messages": 5}, "messages", "got `int`"),
    ],
)
async def test_a_bad_request(
    served: Served, path: str, fields: dict[str, Any], param: str, told: str
) -> None:
    response = await served.http.post(path, json={"model": "auto", **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert told in response.json()["error"]["message"]
