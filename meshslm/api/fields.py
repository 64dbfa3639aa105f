"""Types and checks of single fields, for every family of requests.

Rules:
- A check raises `RequestFault` that names the field, has the numbers, and is short.
- `None` means "not given" everywhere, because clients send explicit nulls.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from meshslm import limits
from meshslm.api.decode import bad_request, clipped

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
TokenCount = Annotated[int, Meta(ge=1, le=limits.MAX_TOKENS)]
LogprobCount = Annotated[int, Meta(ge=0, le=limits.TOP_LOGPROBS)]
Bias = Annotated[float, Meta(ge=-100.0, le=100.0)]
TokenId = Annotated[int, Meta(ge=0, le=2**31)]

_TOOL_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{limits.TOOL_NAME_BYTES}}}")


def check_bytes(text: str, name: str, most: int) -> None:
    """Raises `RequestFault` where a text takes more than `most` bytes."""
    # A character is at most four bytes, so the cheap test decides nearly always.
    if len(text) * 4 <= most:
        return
    size = len(text.encode())
    if size > most:
        raise bad_request(f"'{name}' is {size} bytes long; at most {most} are taken.", name)


def check_together(texts: Iterable[str], name: str) -> None:
    """Raises `RequestFault` where all texts of a request together are too long."""
    size = sum(len(text.encode()) for text in texts)
    if size > limits.PROMPT_BYTES:
        raise bad_request(
            f"'{name}' have {size} bytes of text, all {name} together; "
            f"at most {limits.PROMPT_BYTES} are taken.",
            name,
        )


def check_stops(stops: tuple[str, ...], name: str) -> None:
    """Raises `RequestFault` where stop strings are too many, too long or empty."""
    if len(stops) > limits.STOPS:
        raise bad_request(
            f"'{name}' has {len(stops)} strings; at most {limits.STOPS} are taken.", name
        )
    for stop in stops:
        if not stop:
            raise bad_request(f"'{name}' has an empty string, which would stop at once.", name)
        check_bytes(stop, name, limits.STOP_BYTES)


def check_biases(biases: Mapping[str, float]) -> None:
    """Raises `RequestFault` where the keys of `logit_bias` are no token ids."""
    if len(biases) > limits.LOGIT_BIASES:
        raise bad_request(
            f"'logit_bias' has {len(biases)} tokens; at most {limits.LOGIT_BIASES} are taken.",
            "logit_bias",
        )
    for token in biases:
        if not (token.isascii() and token.isdigit() and len(token) <= 10 and int(token) < 2**31):
            raise bad_request(
                f"'logit_bias' has the key '{clipped(token)}'; keys are token ids from 0.",
                "logit_bias",
            )


def check_choice(value: str | None, name: str, known: Iterable[str]) -> None:
    """Raises `RequestFault` where a text is none of those that are known."""
    known = list(known)
    if value is not None and value not in known:
        raise bad_request(f"'{name}' is '{clipped(value)}'; served are {', '.join(known)}.", name)


def check_id(value: str | None, name: str) -> str:
    """An id that must be there; raises `RequestFault` where it is not, or too long."""
    if not value:
        raise bad_request(f"'{name}' is missing.", name)
    check_bytes(value, name, limits.NAME_BYTES)
    return value


def check_tool_name(value: str | None, name: str) -> str:
    """The name of a function; raises `RequestFault` where it is none."""
    if not value:
        raise bad_request(f"'{name}' is missing: a tool needs a name.", name)
    if not _TOOL_NAME.fullmatch(value):
        raise bad_request(
            f"'{name}' is '{clipped(value)}'; names have 1 to {limits.TOOL_NAME_BYTES} letters, "
            "digits, '_' and '-'.",
            name,
        )
    return value


def refuse_if_set(name: str, value: object) -> None:
    """Raises `RequestFault` where a field that is not served asks for something."""
    if value not in (None, False, [], {}, ""):  # no set: it may be an object
        raise bad_request(f"'{name}' is not supported yet.", name)


def json_text(value: object, name: str, most: int = limits.SCHEMA_BYTES) -> str:
    """A JSON value as text; raises `RequestFault` where it is too large or too deep to be used."""
    try:
        encoded = msgspec.json.encode(value)
    except RecursionError:
        raise bad_request(f"'{name}' is nested too deeply.", name) from None
    if len(encoded) > most:
        raise bad_request(f"'{name}' takes {len(encoded)} bytes; at most {most} are taken.", name)
    return encoded.decode()


def text_of_parts(
    content: str | list[Any] | None, where: str, kinds: Iterable[str] = ("text",)
) -> str:
    """The text of a content, which is one text or parts of the given kinds, joined.

    The parts have `type` and `text`. Raises `RequestFault` where something else is among them.
    """
    if content is None:
        raise bad_request(f"'{where}' is missing.", where)
    if isinstance(content, str):
        return content
    if len(content) > limits.CONTENT_PARTS:
        raise bad_request(
            f"'{where}' has {len(content)} parts; at most {limits.CONTENT_PARTS} are taken.", where
        )
    texts = []
    for index, part in enumerate(content):
        if part.type not in kinds:
            raise bad_request(
                f"'{where}[{index}]' is of type '{clipped(part.type)}'; "
                f"the models here read only {' and '.join(map(repr, kinds))}.",
                f"{where}[{index}].type",
            )
        if part.text is None:
            raise bad_request(f"'{where}[{index}].text' is missing.", f"{where}[{index}].text")
        texts.append(part.text)
    return "".join(texts)
