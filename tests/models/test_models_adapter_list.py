"""The list of adapters follows the store, and reads it only when it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from meshslm.models.adapter_list import AdapterList
from meshslm.models.model_library import ModelLibrary
from meshslm.models.store import Blob, Manifest, ModelStore


def place(store: ModelStore, name: str, adapter_of: str = "") -> Manifest:
    blob = Blob((name.encode().hex() * 64)[:64], 4, "F32")
    staged = store.root / "staged"
    staged.parent.mkdir(parents=True, exist_ok=True)
    staged.write_bytes(b"1234")
    manifest = Manifest(
        name=name,
        source="file:/x",
        pinned=False,
        original=blob,
        wanted="",
        architecture="llama",
        parameters=1,
        context_length=1,
        chat_template=False,
        adapter_of=adapter_of,
        pulled_at="2026-01-01T00:00:00+00:00",
    )
    store.place(manifest, {blob: staged})
    return manifest


def test_adapters_by_their_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    library = ModelLibrary(tmp_path / "models", environment=os.environ)
    listed = AdapterList(library)
    assert listed.of("base") == {}
    store = library.store
    place(store, "base")
    polite, terse = place(store, "polite", "base"), place(store, "terse", "base")
    place(store, "rhyme", "other")
    known = {m.name: m.used.sha256 for m in (polite, terse)}
    assert listed.of("base") == known
    assert listed.sizes("base") == (4, 4)
    assert listed.of("polite") == {}
    assert listed.of("other").keys() == {"rhyme"}
    store.path(terse.used).unlink()
    assert listed.of("base") == known, "nothing is read while no model comes or goes"
    store.remove("rhyme", lambda _: None)
    assert listed.of("base").keys() == {"polite"}, "one without its file is none"
    assert listed.of("other") == {}
    (store.root / "manifests" / "broken.json").write_bytes(msgspec.json.encode({"name": 1}))
    assert listed.of("base").keys() == {"polite"}
    assert "broken" in caplog.text
