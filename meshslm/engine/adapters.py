"""LoRA adapters on one loaded model: brought when first asked for, and kept while there is room.

Rules:
- An adapter is known by its file, whose name is a digest: another file under the same name is
  another adapter, and shares neither a step nor a cached prefix with the first.
- A file is checked against the base's header before llama.cpp sees it. One that was refused is
  looked at again when it is asked for again: the file may have been replaced.
- What runs use stays. Of the others the one that was used longest ago goes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from meshslm.engine.gguf import GgufHeader, read_header
from meshslm.engine.llama import Adapter, Model
from meshslm.engine.lora import check_adapter
from meshslm.engine.spare import require
from meshslm.errors import FaultCode, OurFault, RequestFault
from meshslm.limits import ADAPTERS, ADAPTERS_BYTES, MIB


@dataclass(slots=True)
class _Held:
    """One loaded adapter."""

    adapter: Adapter
    size: int
    users: int = 0
    turn: int = 0
    """When it was used last."""


class Adapters:
    """The adapters of one model."""

    def __init__(self, model: Model, base: GgufHeader) -> None:
        self._model = model
        self._base = base
        self._held: dict[str, _Held] = {}
        self._turn = 0

    @property
    def base(self) -> GgufHeader:
        """What the model's file says of itself."""
        return self._base

    def take(self, name: str, file: str) -> str:
        """Have an adapter ready for one run; the group of that run. Raises `RequestFault`.

        `name` is what the request calls it; `release` is due for each `take` of one.
        """
        if not name:
            return ""
        if not file:
            raise RequestFault(
                FaultCode.UNKNOWN_MODEL, f"there is no adapter {name!r} here", param="adapter"
            )
        held = self._held.get(file)
        if held is None:
            held = self._bring(name, Path(file))
            self._held[file] = held
        self._turn += 1
        held.users += 1
        held.turn = self._turn
        return file

    def release(self, group: str) -> None:
        """A run of this group has ended."""
        if group:
            self._held[group].users -= 1

    def use(self, group: str) -> None:
        """Compute for this group from now on."""
        self._model.use_adapter(self.of(group))

    def of(self, group: str) -> Adapter | None:
        """The adapter of a group; none for the base alone."""
        return self._held[group].adapter if group else None

    def forget(self, file: str) -> None:
        """Free an adapter that nobody uses; one in use stays until room is needed."""
        held = self._held.get(file)
        if held is not None and not held.users:
            del self._held[file]
            self._model.free_adapter(held.adapter)

    def _bring(self, name: str, path: Path) -> _Held:
        try:
            header = read_header(path)
            check_adapter(name, header, self._base)
            self._make_room(name, header.file_size)
            require(f"the adapter {name}", header.file_size / MIB)
            return _Held(self._model.load_adapter(path), header.file_size)
        except OurFault as fault:
            raise RequestFault(FaultCode.BAD_REQUEST, str(fault), param="adapter") from fault

    def _make_room(self, name: str, size: int) -> None:
        if size > ADAPTERS_BYTES:
            raise OurFault(f"{name} has {size} bytes, at most {ADAPTERS_BYTES}")
        while len(self._held) >= ADAPTERS or self._bytes + size > ADAPTERS_BYTES:
            idle = [file for file, held in self._held.items() if not held.users]
            if not idle:
                raise RequestFault(
                    FaultCode.OVERLOADED,
                    f"no room for {name}: {len(self._held)} adapters with {self._bytes} bytes are "
                    f"in use, at most {ADAPTERS} and {ADAPTERS_BYTES}",
                )
            self.forget(min(idle, key=lambda file: self._held[file].turn))

    @property
    def _bytes(self) -> int:
        return sum(held.size for held in self._held.values())
