"""Reading a JSON body into a typed value, or saying what is wrong with it.

Rules:
- Whatever the bytes are, the only error raised is `RequestFault(BAD_REQUEST)`.
- `param` names the offending field the way OpenAI does: `messages[0].content`.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from meshslm import limits
from meshslm.errors import FaultCode, RequestFault

T = TypeVar("T")

_AT = re.compile(r"^(?P<what>.*) - at `(?:key in )?\$\.?(?P<path>.*)`$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<field>[^`]+)`")

_TRUNCATED = "Input data was truncated"
# Every escape of a JSON string in turn, because a backslash may be escaped too.
_ESCAPE = re.compile(
    rb"\\(?:u(?P<high>[dD][89abAB]..)(?P<low>\\u[dD][c-fC-F]..)?|u(?P<lone>[dD][c-fC-F]..)|.)",
    re.DOTALL,
)


def bad_request(detail: str, param: str | None = None) -> RequestFault:
    """A fault of the request itself, about the field `param`."""
    return RequestFault(FaultCode.BAD_REQUEST, detail, param=param)


def clipped(text: str) -> str:
    """A client's own words, short enough to repeat in a message."""
    if len(text) <= limits.HTTP_PARAM_CHARS:
        return text
    return text[: limits.HTTP_PARAM_CHARS] + "..."


def decode_body(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """`body` as the decoder's type; raises `RequestFault` (bad request) otherwise."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_request(
            f"The body is not valid UTF-8: byte 0x{body[error.start]:02x} at offset {error.start}."
        ) from None
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _of_validation(str(error)) from None
    except msgspec.DecodeError as error:
        raise bad_request(f"The body is not valid JSON: {not_json(body, str(error))}.") from None
    except RecursionError:
        raise bad_request("The body is nested too deeply.") from None


def not_json(text: bytes, told: str) -> str:
    """What is wrong with a text that is no JSON; `told` are msgspec's words.

    It says "truncated" of an empty text and of half a surrogate pair too.
    """
    if not text.strip():
        return "it is empty"
    if told == _TRUNCATED or "surrogate" in told:
        for escape in _ESCAPE.finditer(text):
            if escape["lone"] or (escape["high"] and not escape["low"]):
                half = escape[0].decode("ascii", errors="replace")
                return f"{half} at offset {escape.start()} is half of a surrogate pair"
        return "it ends too early"
    return told


def _of_validation(told: str) -> RequestFault:
    """A fault that names the field, from msgspec's words for a mismatch."""
    found = _AT.match(told)
    what, path = (found["what"], found["path"]) if found else (told, "")
    missing = _MISSING.search(what)
    if missing:
        field = f"{path}.{missing['field']}" if path else missing["field"]
        return bad_request(f"Missing required parameter: '{field}'.", field)
    if path:
        what = what[:1].lower() + what[1:]
        return bad_request(f"Invalid value for '{path}': {what}.", path)
    return bad_request(f"Invalid body: {what}.")
