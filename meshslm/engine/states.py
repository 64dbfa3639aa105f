"""Computed beginnings of prompts on disk: they outlive a model's time in memory.

A file has the names of its tiles (see `prefix_cache`), the state that llama.cpp gave for them, and
a checksum over all of it. Its name has the key of the model and build that computed it, and the
name of its last tile, which stands for every token before it.

Rules:
- The folder has a bound; what was not used for longest goes first. Files of other models count.
- A file is whole or it is not there: written beside its place and renamed.
- What is damaged, or no such file at all, is told in the log, deleted, and otherwise ignored.
- It holds what people said: only the owner may read it, and nothing is written unless asked for.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from meshslm.engine.prefix_cache import NAME_BYTES, Tiles
from meshslm.errors import OurFault

log = logging.getLogger("meshslm.engine.states")

MAGIC: Final = b"meshslm1"
CHECK_BYTES: Final = 32
LEAST_TILES: Final = 4
"""Shorter beginnings are computed again as fast as they are read."""
MOST_TILES: Final = 65_536
SUFFIX: Final = ".kv"

_HEAD: Final = struct.Struct(f"<{len(MAGIC)}s{NAME_BYTES}sIQ")


def key_of(*facts: object) -> bytes:
    """A key of everything that decides what the numbers of a state mean."""
    return blake2b("\n".join(map(str, facts)).encode(), digest_size=NAME_BYTES).digest()


@dataclass(frozen=True, slots=True)
class _Kept:
    """One file of this model's."""

    path: Path
    tiles: Tiles


class StateStore:
    """The files of one model in a folder."""

    def __init__(self, folder: Path, key: bytes, most_bytes: int) -> None:
        """Look what is there. Raises `OurFault` or `OSError` where the folder cannot be used."""
        self._folder = folder
        self._key = key
        self._most = most_bytes
        self._kept: dict[bytes, _Kept] = {}
        make_folder(folder)
        for path in sorted(folder.iterdir()):
            tiles = self._tiles_of(path)
            if tiles:
                self._note(_Kept(path, tiles))

    def find(self, tiles: Tiles) -> Tiles:
        """The longest beginning of these that a file has; empty for none."""
        for count in range(len(tiles), 0, -1):
            kept = self._kept.get(tiles[count - 1])
            if kept is not None:
                return tiles[:count]
        return ()

    def load(self, tiles: Tiles) -> tuple[Tiles, bytes] | None:
        """The state of a file that begins with these, and all its tiles; None where damaged."""
        kept = self._kept.get(tiles[-1])
        if kept is None:
            return None
        try:
            data = kept.path.read_bytes()
            check = blake2b(memoryview(data)[:-CHECK_BYTES], digest_size=CHECK_BYTES).digest()
            if check != data[-CHECK_BYTES:]:
                self._discard(kept.path, "its checksum is wrong")
                return None
            with kept.path.open("r+b") as file:
                file.truncate(len(data))  # used now: the sandbox forbids setting times
        except OSError as error:
            self._discard(kept.path, str(error))
            return None
        begin = _HEAD.size + NAME_BYTES * len(kept.tiles)
        return kept.tiles, data[begin:-CHECK_BYTES]

    def save(self, tiles: Tiles, state: bytes) -> bool:
        """Keep a state; whether it is there now. A full disk is told in the log."""
        if len(tiles) < LEAST_TILES or self.find(tiles) == tiles:
            return False
        head = _HEAD.pack(MAGIC, self._key, len(tiles), len(state))
        names = b"".join(tiles)
        size = len(head) + len(names) + len(state) + CHECK_BYTES
        if size > self._most:
            return False
        path = self._folder / f"{self._key.hex()}-{tiles[-1].hex()}{SUFFIX}"
        try:
            self._make_room(size)
            _write(path, (head, names, state))
        except OSError as error:
            log.warning("the state of a conversation could not be kept: %s", error)
            return False
        self._note(_Kept(path, tiles))
        return True

    # --- inside -----------------------------------------------------------------------------------
    def _note(self, kept: _Kept) -> None:
        for name in kept.tiles:
            known = self._kept.get(name)
            if known is None or len(known.tiles) > len(kept.tiles):
                self._kept[name] = kept

    def _tiles_of(self, path: Path) -> Tiles:
        """The tiles of a file that is this model's; none for others, and for what it deletes."""
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD.size)
                size = os.fstat(file.fileno()).st_size
                if len(head) < _HEAD.size or not head.startswith(MAGIC):
                    self._discard(path, "it is none of these files")
                    return ()
                _, key, count, length = _HEAD.unpack(head)
                if count > MOST_TILES or size != _HEAD.size + NAME_BYTES * count + length + 32:
                    self._discard(path, "its length is wrong")
                    return ()
                if key != self._key:
                    return ()
                names = file.read(NAME_BYTES * count)
        except OSError as error:
            log.warning("%s is not read: %s", path.name, error)
            return ()
        return tuple(names[at : at + NAME_BYTES] for at in range(0, len(names), NAME_BYTES))

    def _make_room(self, size: int) -> None:
        files = []
        for path in self._folder.iterdir():
            stat = path.stat()
            files.append((stat.st_mtime_ns, path.name, stat.st_size, path))
        total = sum(entry[2] for entry in files)
        for _, _, length, path in sorted(files):
            if total + size <= self._most:
                return
            self._forget(path)
            path.unlink(missing_ok=True)
            total -= length

    def _discard(self, path: Path, why: str) -> None:
        log.warning("%s is deleted: %s", path.name, why)
        self._forget(path)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be deleted: %s", path.name, error)

    def _forget(self, path: Path) -> None:
        gone = [name for name, kept in self._kept.items() if kept.path == path]
        for name in gone:
            del self._kept[name]


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner may read, if it is not there. Raises `OurFault`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OurFault(f"no folder for states at {folder}: {error}") from error


def _write(path: Path, parts: Sequence[bytes]) -> None:
    """Write a file with its checksum, so that it is there whole or not at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    check = blake2b(digest_size=CHECK_BYTES)
    try:
        beside.touch(mode=0o600, exist_ok=False)
        with beside.open("wb") as file:
            for part in parts:
                check.update(part)
                file.write(part)
            file.write(check.digest())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
