"""The members that a node has met and where, on disk: how it finds back after a restart.

Rules:
- A hint and nothing more: who answers there is proven anew, and must be a member still.
- Bounded, written whole or not at all, readable by its owner alone.
- A file that cannot be read costs a warning, never a start; the next write replaces it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from meshslm import limits, mesh_limits
from meshslm.adapters.multiaddrs import AddressError, parse
from meshslm.errors import UNREADABLE
from meshslm.ids import NodeId

log = logging.getLogger("meshslm.peers")

PEERS_FILE = "peers.json"
VERSION = 1


class Acquaintance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member, and the addresses at which to look for it, the best first."""

    peer: str
    addresses: tuple[str, ...]


class _Document(msgspec.Struct, frozen=True):
    version: int
    mesh: str
    peers: tuple[Acquaintance, ...]


class PeersFile:
    """Reads and writes the file of one node. Its calls block for a moment of disk."""

    def __init__(self, folder: Path, mesh: str) -> None:
        self._path = folder / PEERS_FILE
        self._mesh = mesh
        self._known: tuple[Acquaintance, ...] = ()

    def load(self) -> tuple[Acquaintance, ...]:
        """Whom this node knew, the latest first; nobody where nothing of use is there."""
        try:
            with self._path.open("rb") as file:
                text = file.read(mesh_limits.PEERS_FILE_BYTES + 1)
            if len(text) > mesh_limits.PEERS_FILE_BYTES:
                raise msgspec.ValidationError(f"over {mesh_limits.PEERS_FILE_BYTES} bytes")
            document = msgspec.json.decode(text, type=_Document)
        except FileNotFoundError:
            return ()
        except (OSError, *UNREADABLE) as error:
            log.warning("%s is of no use and will be written anew: %s", self._path, error)
            return ()
        if document.version == VERSION and document.mesh == self._mesh:
            self._known = tuple(_sound(document.peers))[: mesh_limits.PEERS_REMEMBERED]
        return self._known

    def save(self, met: Iterable[Acquaintance]) -> None:
        """Write down who was met lately, the latest first; those known before follow them.

        Without effect where nothing has changed. What goes wrong costs a warning.
        """
        entries = {entry.peer: entry for entry in (*met, *self._known)}
        latest = {entry.peer: entry for entry in met}
        known = tuple(latest.get(peer, entry) for peer, entry in entries.items())
        known = known[: mesh_limits.PEERS_REMEMBERED]
        if known == self._known:
            return
        try:
            self._write(
                msgspec.json.format(msgspec.json.encode(_Document(VERSION, self._mesh, known)))
            )
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error.strerror)
            return
        self._known = known

    def _write(self, text: bytes) -> None:
        draft = self._path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)


def _sound(entries: Iterable[Acquaintance]) -> Iterable[Acquaintance]:
    """The entries whose addresses are of their peer; no others are dialled."""
    for entry in entries:
        addresses = []
        for text in entry.addresses[: limits.ADDRESSES_PER_PEER]:
            try:
                address = parse(text)
            except AddressError:
                continue
            if address.peer == entry.peer:
                addresses.append(text)
        if addresses:
            yield Acquaintance(NodeId(entry.peer), tuple(addresses))
