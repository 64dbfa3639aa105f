"""Golden byte vectors of the protocol: checks those in tests/vectors, and completes new ones.

    python scripts/wire_vectors.py         say which vectors are incomplete
    python scripts/wire_vectors.py --fill  complete them

A new vector is written by hand into tests/vectors/messages.json, with a name and a message, and
without bytes: {"name": "ping", "message": {"kind": "Ping", "nonce": 7}}. `--fill` adds its bytes
and the fields left to their defaults. A vector that has bytes is never touched: it says what is out
there in the field, and a test fails when the code no longer agrees with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from meshslm.wire.codec import encode, message_classes
from meshslm.wire.messages import Message
from meshslm.wire.schema import Field, fields_of

MESSAGES = Path(__file__).parent.parent / "tests" / "vectors" / "messages.json"
KINDS = {cls.__name__: cls for cls in message_classes()}


def to_plain(value: Any) -> Any:
    """A message, part or value as JSON, every field included, bytes in hex."""
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "__dataclass_fields__"):
        kind = {"kind": type(value).__name__} if type(value) in KINDS.values() else {}
        named = {f.name: to_plain(getattr(value, f.name)) for f in fields_of(type(value))}
        return {**kind, **named}
    return value


def from_plain(plain: dict[str, Any]) -> Message:
    """The message that `to_plain` gave, or that a person wrote with only some of its fields."""
    cls = KINDS[plain["kind"]]
    message: Message = _part(cls, {name: plain[name] for name in plain if name != "kind"})
    return message


def _part(cls: type, plain: dict[str, Any]) -> Any:
    by_name = {field.name: field for field in fields_of(cls)}
    return cls(**{name: _value(by_name[name], value) for name, value in plain.items()})


def _value(field: Field, plain: Any) -> Any:
    if field.many:
        return tuple(_item(field, item) for item in plain)
    return _item(field, plain)


def _item(field: Field, plain: Any) -> Any:
    if plain is None:
        return None
    if field.nested:
        return _part(field.kind, plain)
    if field.kind is bytes:
        return bytes.fromhex(plain)
    return float(plain) if field.kind is float else plain


def completed(vector: dict[str, Any]) -> dict[str, Any]:
    """The vector itself if it has bytes, else with bytes and with every field."""
    if "hex" in vector:
        return vector
    message = from_plain(vector["message"])
    return {
        "name": vector["name"],
        "hex": encode(message).hex(),
        "message": to_plain(message),
    }


def main() -> int:
    """Exit status 1 where vectors are incomplete and were not to be completed."""
    vectors = json.loads(MESSAGES.read_text("utf-8"))
    incomplete = [vector["name"] for vector in vectors if "hex" not in vector]
    print(f"{len(vectors)} vectors, {len(incomplete)} incomplete: {', '.join(incomplete)}")
    if "--fill" not in sys.argv[1:]:
        return 1 if incomplete else 0
    filled = [completed(vector) for vector in vectors]
    MESSAGES.write_text(json.dumps(filled, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
