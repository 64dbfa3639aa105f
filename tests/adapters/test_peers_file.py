"""The file of acquaintances: kept, bounded, private, and no harm where it is damaged."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from meshslm import limits, mesh_limits
from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.peers_file import PEERS_FILE, Acquaintance, PeersFile

ANN, BOB, EVE = (NodeKey.generate().node_id for _ in range(3))


def at(peer: str, port: int = 1) -> str:
    return f"/ip4/192.0.2.7/tcp/{port}/p2p/{peer}"


def known(peer: str, *ports: int) -> Acquaintance:
    return Acquaintance(peer, tuple(at(peer, port) for port in ports or (1,)))


def test_what_was_saved_is_there_in_the_next_life(tmp_path: Path) -> None:
    file = PeersFile(tmp_path, "home")
    assert file.load() == ()
    file.save((known(ANN, 1, 2), known(BOB)))
    assert PeersFile(tmp_path, "home").load() == (known(ANN, 1, 2), known(BOB))
    assert (tmp_path / PEERS_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [PEERS_FILE]


def test_whom_nobody_has_met_since_is_kept_behind_the_others(tmp_path: Path) -> None:
    PeersFile(tmp_path, "home").save((known(ANN), known(BOB)))
    file = PeersFile(tmp_path, "home")
    file.load()
    file.save((known(EVE), known(BOB, 9)))
    assert file.load() == (known(EVE), known(BOB, 9), known(ANN))


def test_nothing_is_written_where_nothing_has_changed(tmp_path: Path) -> None:
    file = PeersFile(tmp_path, "home")
    file.save((known(ANN),))
    (tmp_path / PEERS_FILE).unlink()
    file.save((known(ANN),))
    assert not (tmp_path / PEERS_FILE).exists()


def test_it_is_bounded(tmp_path: Path) -> None:
    file = PeersFile(tmp_path, "home")
    many = tuple(known(NodeKey.generate().node_id) for _ in range(mesh_limits.PEERS_REMEMBERED + 9))
    file.save(many)
    assert file.load() == many[: mesh_limits.PEERS_REMEMBERED]
    assert (tmp_path / PEERS_FILE).stat().st_size < mesh_limits.PEERS_FILE_BYTES


def test_another_mesh_is_not_remembered(tmp_path: Path) -> None:
    PeersFile(tmp_path, "home").save((known(ANN),))
    assert PeersFile(tmp_path, "work").load() == ()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"x":' + b"[" * 100_000,
        b'{"version": 1, "mesh": "home", "peers": 7}',
        b'{"version": 1, "mesh": "home", "peers": [{"peer": "x", "addresses": "y"}]}',
        b" " * (mesh_limits.PEERS_FILE_BYTES + 1),
        b'{"version": 1, "mesh": "home", "peers": []}' + b" " * mesh_limits.PEERS_FILE_BYTES,
    ],
)
def test_a_damaged_file_is_a_warning_and_is_written_anew(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / PEERS_FILE).write_bytes(damage)
    file = PeersFile(tmp_path, "home")
    with caplog.at_level(logging.WARNING, "meshslm.peers"):
        assert file.load() == ()
    assert "of no use" in caplog.text
    file.save((known(ANN),))
    assert PeersFile(tmp_path, "home").load() == (known(ANN),)


def test_addresses_that_are_not_of_their_peer_are_left_out(tmp_path: Path) -> None:
    entries = [
        {"peer": ANN, "addresses": [at(BOB), "nonsense", at(ANN)]},
        {"peer": BOB, "addresses": [at(ANN)]},
        {"peer": EVE, "addresses": [at(EVE, port) for port in range(1, 40)]},
    ]
    document = {"version": 1, "mesh": "home", "peers": entries}
    (tmp_path / PEERS_FILE).write_bytes(msgspec.json.encode(document))
    ann, eve = PeersFile(tmp_path, "home").load()
    assert ann == known(ANN)
    assert len(eve.addresses) == limits.ADDRESSES_PER_PEER


def test_a_file_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = PeersFile(tmp_path / "gone", "home")
    with caplog.at_level(logging.WARNING, "meshslm.peers"):
        file.save((known(ANN),))
    assert "cannot write" in caplog.text
