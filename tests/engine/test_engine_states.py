"""States on disk: bounded, whole or not there, and nothing that is damaged is ever given out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshslm.engine.prefix_cache import TILE, Tiles, tile_names
from meshslm.engine.states import CHECK_BYTES, LEAST_TILES, StateStore, key_of

KEY = key_of("model", 1)
ROOM = 1_000_000


def tiles(family: int, count: int) -> Tiles:
    return tile_names("", [family] * (TILE * count))


def test_what_was_kept_is_found_by_its_beginning(tmp_path: Path) -> None:
    store = StateStore(tmp_path, KEY, ROOM)
    long = tiles(1, 8)
    assert store.save(long, b"state")
    for again in (store, StateStore(tmp_path, KEY, ROOM)):
        assert again.find(tile_names("", [1] * (TILE * 6) + [2] * 100)) == long[:6]
        assert again.load(long[:6]) == (long, b"state")
        assert again.find(tiles(2, 8)) == ()
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]


def test_what_is_short_or_there_already_or_too_large_is_not_kept(tmp_path: Path) -> None:
    store = StateStore(tmp_path, KEY, 10_000)
    assert not store.save(tiles(1, LEAST_TILES - 1), b"state")
    assert not store.save(tiles(1, LEAST_TILES), bytes(10_000))
    assert store.save(tiles(1, 6), b"state")
    assert not store.save(tiles(1, 5), b"state")
    assert len(list(tmp_path.iterdir())) == 1


def test_another_models_states_are_left_alone_and_not_given_out(tmp_path: Path) -> None:
    StateStore(tmp_path, key_of("other"), ROOM).save(tiles(1, 5), b"state")
    store = StateStore(tmp_path, KEY, ROOM)
    assert store.find(tiles(1, 5)) == ()
    assert len(list(tmp_path.iterdir())) == 1


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store = StateStore(tmp_path, KEY, 3500)
    for family in (1, 2, 3):
        assert store.save(tiles(family, 5), bytes(1000))
        for path in tmp_path.iterdir():
            if tiles(family, 5)[-1].hex() in path.name:
                os.utime(path, ns=(family, family))
    assert store.load(tiles(1, 5)) is not None
    assert store.save(tiles(4, 5), bytes(1000))
    assert [bool(store.find(tiles(family, 5))) for family in (1, 2, 3, 4)] == [1, 0, 1, 1]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3500


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_nothing_damaged_is_given_out(tmp_path: Path, data: st.DataObject) -> None:
    kept = tiles(1, 5)
    StateStore(tmp_path, KEY, ROOM).save(kept, b"the state of a conversation")
    (path,) = tmp_path.iterdir()
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    path.write_bytes(raw)
    store = StateStore(tmp_path, KEY, ROOM)
    found = store.find(kept)
    assert not found or store.load(found) is None
    assert store.find(kept) == ()
    for left in tmp_path.iterdir():  # damage to the key makes it another model's
        left.unlink()


def test_strange_files_are_deleted_and_folders_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x" * (CHECK_BYTES + 100))
    (tmp_path / "folder").mkdir()
    StateStore(tmp_path, KEY, ROOM)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert "notes.txt is deleted" in caplog.text


def test_a_full_disk_costs_only_the_state(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "states", KEY, ROOM)
    (tmp_path / "states").rmdir()
    assert not store.save(tiles(1, 5), b"state")
    assert store.find(tiles(1, 5)) == ()
