"""Golden bytes: what nodes in the field send and read. A failure here is a broken protocol."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from meshslm.errors import PeerFault
from meshslm.wire.codec import UnknownKind, decode, encode, message_classes

ROOT = Path(__file__).parent.parent.parent


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


vectors = load_script("wire_vectors")


def read(name: str) -> list[Any]:
    entries = json.loads((ROOT / "tests" / "vectors" / f"{name}.json").read_text("utf-8"))
    return [pytest.param(entry, id=entry["name"]) for entry in entries]


def as_of_old(now: Any, then: Any) -> Any:
    """`now` without the fields that a message had not yet when its vector was made."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {name: as_of_old(now[name], then[name]) for name in then}
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        return [as_of_old(a, b) for a, b in zip(now, then, strict=True)]
    return now


@pytest.mark.parametrize("vector", read("messages"))
def test_a_message_is_written_and_read_as_ever(vector: dict[str, Any]) -> None:
    assert "hex" in vector, "complete it: python scripts/wire_vectors.py --fill"
    message = vectors.from_plain(vector["message"])
    assert encode(message).hex() == vector["hex"]
    assert decode(bytes.fromhex(vector["hex"])) == message
    shown = as_of_old(vectors.to_plain(message), vector["message"])
    assert shown == vector["message"], "a default or a name has changed"


@pytest.mark.parametrize("vector", read("future"))
def test_a_later_version_is_understood(vector: dict[str, Any]) -> None:
    message = vectors.to_plain(decode(bytes.fromhex(vector["hex"])))
    assert as_of_old(message, vector["message"]) == vector["message"]


@pytest.mark.parametrize("vector", read("refused"))
def test_what_must_be_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(PeerFault) as caught:
        decode(bytes.fromhex(vector["hex"]))
    assert isinstance(caught.value, UnknownKind) is vector.get("unknown_kind", False)


def test_every_kind_has_a_vector() -> None:
    covered = {param.values[0]["message"]["kind"] for param in read("messages")}
    assert covered == {cls.__name__ for cls in message_classes()}


def test_filling_leaves_a_complete_vector_alone() -> None:
    old = {"name": "old", "hex": "00", "message": {"kind": "Probe", "peer": "a", "nonce": 1}}
    assert vectors.completed(old) is old
    new = {"name": "new", "message": {"kind": "Probe", "peer": "a", "nonce": 1}}
    assert vectors.completed(new) == {**new, "hex": "92098201a1610201"}
