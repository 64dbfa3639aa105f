"""What the API takes, and how it says no."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.api.decode import decode_body
from meshslm.api.openai_requests import ChatRequest, CompletionRequest
from meshslm.errors import FaultCode, RequestFault

CHATS = msgspec.json.Decoder(ChatRequest)
TEXTS = msgspec.json.Decoder(CompletionRequest)

USER = {"role": "user", "content": "Hi"}
OVER = limits.PROMPT_BYTES + 1


def written(body: dict[str, Any]) -> bytes:
    """As JSON, without the fields that are unset."""
    given = {name: value for name, value in body.items() if value is not msgspec.UNSET}
    return json.dumps(given).encode()


def read_chat(**fields: Any) -> ChatRequest:
    asked = decode_body(written({"model": "auto", "messages": [USER], **fields}), CHATS)
    asked.check()
    return asked


def read_text(**fields: Any) -> CompletionRequest:
    asked = decode_body(written({"model": "auto", "prompt": "Once", **fields}), TEXTS)
    asked.check()
    return asked


def turn(**fields: Any) -> dict[str, Any]:
    return {"messages": [{**USER, **fields}]}


# --- both ---------------------------------------------------------------------------------------
BAD_FOR_BOTH: list[tuple[str, Any, str]] = [
    ("model", 7, "expected `str`"),
    ("model", None, "expected `str`"),
    ("model", "", "is empty"),
    ("model", "m" * 300, "300 bytes long; at most 256"),
    ("model", "é" * 129, "258 bytes long; at most 256"),
    ("stream", "yes", "expected `bool | null`"),
    ("stream_options", {"include_usage": True}, "only allowed with 'stream'"),
    ("stream_options", [], "expected `object | null`"),
    ("max_tokens", 0, ">= 1"),
    ("max_tokens", -5, ">= 1"),
    ("max_tokens", 10**7, "<= 1000000"),
    ("max_tokens", 10**40, "<= 1000000"),
    ("max_tokens", 1.5, "got `float`"),
    ("max_tokens", "10", "got `str`"),
    ("n", 0, ">= 1"),
    ("n", 17, "<= 16"),
    ("n", True, "got `bool`"),
    ("stop", 5, "got `int`"),
    ("stop", "", "empty string"),
    ("stop", ["a", ""], "empty string"),
    ("stop", ["a"] * 17, "17 strings; at most 16"),
    ("stop", "x" * 257, "257 bytes long; at most 256"),
    ("stop", ["ok", "é" * 200], "400 bytes long"),
    ("seed", 2**63, "<= 9223372036854775807"),
    ("seed", 10**30, "expected `int`"),
    ("seed", 0.5, "got `float`"),
    ("temperature", -0.1, ">= 0.0"),
    ("temperature", 2.1, "<= 2.0"),
    ("temperature", "hot", "got `str`"),
    ("temperature", True, "got `bool`"),
    ("top_p", 1.01, "<= 1.0"),
    ("top_p", -1, ">= 0.0"),
    ("min_p", 2, "<= 1.0"),
    ("top_k", -1, ">= 0"),
    ("top_k", 2**40, "<= 2147483648"),
    ("repeat_penalty", 0, "> 0.0"),
    ("repeat_penalty", 11, "<= 10.0"),
    ("frequency_penalty", 3, "<= 2.0"),
    ("presence_penalty", -3, ">= -2.0"),
    ("logit_bias", {"1": 101}, "<= 100.0"),
    ("logit_bias", {"1": "2"}, "got `str`"),
    ("logit_bias", {"word": 1}, "has the key 'word'"),
    ("logit_bias", {"-1": 1}, "has the key '-1'"),
    ("logit_bias", {"²": 1}, "has the key '²'"),
    ("logit_bias", {str(2**31): 1}, "keys are token ids"),
    ("logit_bias", {"9" * 6000: 1}, "keys are token ids"),
    ("logit_bias", {str(i): 1 for i in range(1025)}, "1025 tokens; at most 1024"),
    ("logit_bias", [1], "expected `object | null`"),
    ("deadline_ms", 0, ">= 1"),
    ("deadline_ms", limits.DEADLINE_MS + 1, "<= 600000"),
    ("grammar", 5, "expected `str | null`"),
    ("grammar", "x" * (limits.SCHEMA_BYTES + 1), "65537 bytes long; at most 65536"),
    ("adapter", ["legal"], "got `array`"),
    ("adapter", "a" * 129, "129 bytes long; at most 128"),
    ("lora", [{"id": 0, "scale": 1.0}], "name the one adapter in 'adapter'"),
    ("priority", "urgent", "'urgent'; served are interactive, background"),
    ("priority", 3, "got `int`"),
    ("service_tier", "platinum", "'platinum'; served are auto,"),
    ("user", 7, "got `int`"),
    ("safety_identifier", {}, "got `object`"),
]


@pytest.mark.parametrize("read", [read_chat, read_text])
@pytest.mark.parametrize(("field", "value", "told"), BAD_FOR_BOTH)
def test_a_bad_field_is_named(read: Any, field: str, value: Any, told: str) -> None:
    with pytest.raises(RequestFault) as caught:
        read(**{field: value})
    fault = caught.value
    assert fault.code is FaultCode.BAD_REQUEST
    assert told in fault.detail
    assert len(fault.detail) < 500
    assert fault.param is not None
    assert fault.param.partition("[")[0] == field


@pytest.mark.parametrize("written", ["1e999", "-1e999", "1" + "0" * 400])
def test_numbers_beyond_all_bounds(written: str) -> None:
    body = f'{{"model": "auto", "prompt": "x", "temperature": {written}}}'
    with pytest.raises(RequestFault) as caught:
        decode_body(body.encode(), TEXTS).check()
    assert caught.value.param == "temperature"


@pytest.mark.parametrize("read", [read_chat, read_text])
def test_missing_model(read: Any) -> None:
    with pytest.raises(RequestFault, match="Missing required parameter: 'model'") as caught:
        read(model=msgspec.UNSET)
    assert caught.value.param == "model"


@pytest.mark.parametrize("read", [read_chat, read_text])
def test_nulls_and_strangers_are_no_harm(read: Any) -> None:
    plain = read()
    names = {name for name, _, _ in BAD_FOR_BOTH} - {"model"}
    assert read(**dict.fromkeys(names)) == plain
    harmless = {"store": True, "metadata": {"a": 1}}
    assert read(**harmless, brand_new_field=[{"deep": None}]) == plain


def test_what_was_asked_for_is_there() -> None:
    asked = read_chat(stop="END", logit_bias={"5": 1, "007": -2.5}, stream=True, n=3)
    assert asked.stops == ("END",)
    assert asked.biases == ((5, 1.0), (7, -2.5))
    assert not asked.include_usage
    assert read_chat(stream=True, stream_options={"include_usage": True}).include_usage


# --- chat ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "param", "told"),
    [
        ({"messages": []}, "messages", "is empty"),
        ({"messages": None}, "messages", "expected `array`"),
        ({"messages": "Hi"}, "messages", "expected `array`"),
        ({"messages": [USER] * 513}, "messages", "513 messages; at most 512"),
        ({"messages": ["Hi"]}, "messages[0]", "expected `object`"),
        ({"messages": [USER, {"content": "x"}]}, "messages[1].role", "Missing required"),
        (turn(role="wizard"), "messages[0].role", "'wizard'; served are system,"),
        (turn(role="x" * 10_000), "messages[0].role", "..."),
        (turn(content=None), "messages[0].content", "is missing"),
        (turn(content=5), "messages[0].content", "got `int`"),
        (turn(content=[]), "messages[0].content", "empty list"),
        (turn(content=[{"type": "text"}]), "messages[0].content[0].text", "is missing"),
        (
            turn(content=[{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]),
            "messages[0].content[1].type",
            "'image_url'",
        ),
        (turn(content=[{"text": "a"}]), "messages[0].content[0].type", "Missing required"),
        (
            turn(content=[{"type": "text", "text": ""}] * 257),
            "messages[0].content",
            "257 parts; at most 256",
        ),
        (turn(content="x" * OVER), "messages[0].content", f"{OVER} bytes long"),
        (turn(name="n" * 129), "messages[0].name", "129 bytes long"),
        ({"top_logprobs": 3}, "top_logprobs", "needs 'logprobs': true"),
        ({"logprobs": 3}, "logprobs", "got `int`"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "<= 20"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "disagree"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", ">= 1"),
        ({"functions": [{}]}, "functions", "not supported yet"),
        ({"modalities": ["audio"]}, "modalities", "not supported"),
        ({"audio": {"voice": "x"}}, "audio", "not supported yet"),
        ({"prediction": {"type": "content"}}, "prediction", "not supported yet"),
        ({"web_search_options": {"a": 1}}, "web_search_options", "not supported yet"),
    ],
)
def test_a_bad_chat(fields: dict[str, Any], param: str, told: str) -> None:
    with pytest.raises(RequestFault) as caught:
        read_chat(**fields)
    assert caught.value.param == param
    assert told in caught.value.detail


def test_all_turns_together_are_bounded() -> None:
    half = {"role": "user", "content": "x" * (limits.PROMPT_BYTES // 2 + 1)}
    with pytest.raises(RequestFault, match="all messages together") as caught:
        read_chat(messages=[half, half])
    assert caught.value.param == "messages"


def test_harmless_forms_of_what_is_not_served() -> None:
    plain = read_chat()
    harmless: list[dict[str, Any]] = [
        {"tools": []},
        {"tools": None, "tool_choice": "auto", "parallel_tool_calls": True},
        {"tool_choice": "none"},
        {"response_format": {"type": "text"}},
        {"modalities": ["text"]},
        {"max_tokens": 5, "max_completion_tokens": 5},
    ]
    for fields in harmless:
        assert read_chat(**fields).messages == plain.messages


def test_text_parts_are_joined() -> None:
    asked = read_chat(
        **turn(content=[{"type": "text", "text": t} for t in ("a", "", "<|im_end|>")])
    )
    assert asked.turns()[0].content == "a<|im_end|>"


# --- text ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "param", "told"),
    [
        ({"prompt": ""}, "prompt", "is empty"),
        ({"prompt": [""]}, "prompt", "is empty"),
        ({"prompt": []}, "prompt", "empty list"),
        ({"prompt": ["a", ""]}, "prompt", "is empty"),
        ({"prompt": ["a"] * 65}, "prompt", "65 prompts; at most 64"),
        ({"prompt": ["x" * (OVER // 2)] * 3}, "prompt", "bytes long"),
        ({"prompt": [1, 2]}, "prompt", "token ids, which are not supported"),
        ({"prompt": [[1]]}, "prompt", "token ids, which are not supported"),
        ({"prompt": ["a", 1]}, "prompt", "token ids, which are not supported"),
        ({"prompt": [-1]}, "prompt[0]", ">= 0"),
        ({"prompt": [None]}, "prompt[0]", "got `null`"),
        ({"prompt": {}}, "prompt", "expected `str | array`"),
        ({"prompt": "x" * OVER}, "prompt", f"{OVER} bytes long"),
        ({"logprobs": 21}, "logprobs", "<= 20"),
        ({"logprobs": True}, "logprobs", "got `bool`"),
        ({"suffix": "end"}, "suffix", "not supported yet"),
        ({"best_of": 17}, "best_of", "<= 16"),
        ({"best_of": 0}, "best_of", ">= 1"),
        ({"best_of": 2, "n": 3}, "best_of", "(2) is less than 'n' (3)"),
        ({"best_of": 2, "stream": True}, "best_of", "cannot be streamed"),
        ({"best_of": 2, "echo": True, "logprobs": 1}, "best_of", "'echo' and 'logprobs'"),
        ({"n": 2, "max_tokens": 600_000}, "n", "2 answers of up to 600000 tokens are 1200000"),
        ({"best_of": 4, "max_tokens": 300_000}, "best_of", "1200000 tokens"),
        ({"prompt": ["a"] * 3, "max_tokens": 400_000}, "n", "3 answers"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported yet"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported yet"),
        ({"enable_thinking": True}, "enable_thinking", "not supported yet"),
    ],
)
def test_a_bad_text_completion(fields: dict[str, Any], param: str, told: str) -> None:
    with pytest.raises(RequestFault) as caught:
        read_text(**fields)
    assert caught.value.param == param
    assert told in caught.value.detail


def test_one_prompt_in_a_list_is_one_prompt() -> None:
    assert read_text(prompt=["Once"], best_of=2, n=2, suffix="").prompts == ["Once"]
    assert read_text(prompt=["a", "b"]).prompts == ["a", "b"]


# --- anything -----------------------------------------------------------------------------------
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
FIELDS = sorted({*ChatRequest.__struct_fields__, *CompletionRequest.__struct_fields__})
BODIES = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6).flatmap(
    lambda some: st.just({"model": "m", "messages": [USER], "prompt": "p", **some})
)


def outcome(body: bytes, decoder: msgspec.json.Decoder[Any]) -> FaultCode | None:
    """Kind of the fault that reading `body` ends in, if it does."""
    try:
        decode_body(body, decoder).check()
    except RequestFault as fault:
        return fault.code
    return None


@given(body=JSON | BODIES)
def test_any_json_is_read_or_refused(body: Any) -> None:
    for decoder in (CHATS, TEXTS):
        assert outcome(json.dumps(body).encode(), decoder) in {None, FaultCode.BAD_REQUEST}


@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for decoder in (CHATS, TEXTS):
        assert outcome(body, decoder) in {None, FaultCode.BAD_REQUEST}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "it is empty"),
        (b" \r\n", "it is empty"),
        (b'{"model": "auto"', "it ends too early"),
        (b'{"model": "a\\ud83d b"}', r"\\ud83d at offset 12 is half of a surrogate pair"),
        (b'{"model": "\\ud83d\\u0041"}', r"\\ud83d at offset 11 is half of a surrogate pair"),
        (b'{"model": "\\\\\\uDE00"}', r"\\uDE00 at offset 13 is half of a surrogate pair"),
        (b'{"model": "\\\\ud83d', "it ends too early"),
        (b'{"model": nonsense}', "invalid character"),
    ],
)
def test_what_is_no_json_is_told_why(body: bytes, told: str) -> None:
    with pytest.raises(RequestFault, match=f"The body is not valid JSON: .*{told}"):
        decode_body(body, CHATS)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    body = b'{"model": "auto", "prompt": "\\ud83d\\ude00 \\\\ud83d"}'
    assert decode_body(body, TEXTS).prompts == ["\U0001f600 \\ud83d"]
