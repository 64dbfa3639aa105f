"""Model files by digest, and what is known of each model by name.

    blobs/sha256-HEX       a model file; never changes
    manifests/NAME.json    which blobs a model consists of, and where they come from
    staging/NAME/          what is under way, and what an interrupted pull left
    locks/                 one per name, and one for the blobs, while they are held

Rules:
- A manifest never names a blob that is not there whole: blobs are placed first.
- A blob that no manifest names is removed, under the same lock under which both are placed.
- Several processes share a store; whoever changes a name holds its lock.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from meshslm.errors import OurFault
from meshslm.models.catalogue import NAME_PATTERN, ModelName
from meshslm.models.disk import (
    digest_of,
    exclusive,
    sync_file,
    sync_folder,
    system_faults,
    write_whole,
)
from meshslm.models.progress import Report
from meshslm.models.trials import Trial
from meshslm.toml_text import nearest


class Blob(msgspec.Struct, frozen=True):
    """One model file in the store."""

    sha256: str
    size: int
    quantisation: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one stored model."""

    name: ModelName
    source: str
    """Where the original came from."""
    pinned: bool
    """Its digest was known before it was pulled."""
    original: Blob
    converted_from: str = ""
    """SHA-256 of what came from the source, where the original was made from it; else empty."""
    converted_by: str = ""
    """Program and version that made it."""
    prepared: Blob | None = None
    """The file made for this machine from the original; none where the original is used."""
    prepared_by: str = ""
    """Program and versions that made it."""
    trials: tuple[Trial, ...] = ()
    """How the original, and each format it could be prepared to, did on this machine, if it was
    compared."""
    wanted: str
    """Quantisation that is to be used; empty: the original, whatever it is."""
    architecture: str
    parameters: int
    context_length: int
    """Longest context it was trained for, in tokens; 0 where the file does not say."""
    chat_template: bool
    licence: str = ""
    description: str = ""
    adapter_of: str = ""
    """The stored model that it is a LoRA adapter for; empty: it is a model itself."""
    pulled_at: str
    """ISO 8601, in UTC."""

    @property
    def used(self) -> Blob:
        """The file that an engine loads."""
        return self.prepared or self.original

    @property
    def arrived(self) -> str:
        """SHA-256 of what came from the source."""
        return self.converted_from or self.original.sha256

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """All its files."""
        return (self.original,) if self.prepared is None else (self.original, self.prepared)

    @property
    def complete(self) -> bool:
        """Whether the file that is to be used was made."""
        return self.wanted in ("", self.used.quantisation)


class ModelStore:
    """The folder that all daemons of a machine share."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._blobs = self.root / "blobs"
        self._manifests = self.root / "manifests"
        self._staging = self.root / "staging"
        self._locks = self.root / "locks"

    @property
    def blobs(self) -> Path:
        """The folder of all files that engines load."""
        return self._blobs

    def path(self, blob: Blob) -> Path:
        """Where a blob is, or would be."""
        return self._blobs / f"sha256-{blob.sha256}"

    def intact(self, blob: Blob) -> bool:
        """Whether a blob is there with its size; its content is not read."""
        try:
            return self.path(blob).stat().st_size == blob.size
        except FileNotFoundError:
            return False

    def changed_ns(self) -> int:
        """A number that changes when a model is stored or removed; 0 for an empty store."""
        try:
            return self._manifests.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def names(self) -> tuple[str, ...]:
        """Stored models, in order."""
        with system_faults(self._manifests):
            return tuple(sorted(path.stem for path in self._manifests.glob("*.json")))

    def find(self, name: str) -> Manifest | None:
        """The manifest of `name`. Raises `OurFault` where it cannot be read."""
        if name not in self.names():  # also keeps `name` from being a path
            return None
        path = self._manifest_path(name)
        try:
            with system_faults(path):
                return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except msgspec.DecodeError as error:
            raise OurFault(
                f"{path} is damaged ({error}): run `meshslm models rm {name}`, and pull it again"
            ) from None

    def get(self, name: str) -> Manifest:
        """The manifest of `name`. Raises `OurFault` with the nearest name."""
        found = self.find(name)
        if found is None:
            raise OurFault(f"there is no model {name!r} here; {nearest(name, self.names())}")
        return found

    def place(self, manifest: Manifest, staged: Mapping[Blob, Path]) -> None:
        """Take `staged` files in as blobs, then write the manifest that names them."""
        with self._changing_blobs():
            for blob, path in staged.items():
                sync_file(path)
                with system_faults(path):
                    path.chmod(0o444)
                    path.replace(self.path(blob))
            with system_faults(self._blobs):
                sync_folder(self._blobs)
            content = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
            write_whole(self._manifest_path(manifest.name), content)

    def remove(self, name: str, report: Report) -> int:
        """Forget a model, its unused blobs and what an interrupted pull left of it.

        Returns the bytes freed. Raises `OurFault` where nothing is known by that name.
        """
        begun = re.fullmatch(NAME_PATTERN, name) and self._stage_path(name).is_dir()
        if not begun and name not in self.names():
            self.get(name)  # which says what is there
        with self.locked(name, report), self._changing_blobs():
            freed = sum(p.stat().st_size for p in self._stage_path(name).rglob("*") if p.is_file())
            with system_faults(self.root):
                shutil.rmtree(self._stage_path(name), ignore_errors=True)
                self._manifest_path(name).unlink(missing_ok=True)
            return freed + self._collect()

    def verify(self, manifest: Manifest, report: Report) -> None:
        """Read a model's files whole. Raises `OurFault` for the first that is not what it was."""
        for blob in manifest.blobs:
            if not self.intact(blob):
                raise OurFault(
                    f"{manifest.name}: {self.path(blob)} is missing or cut short; {AGAIN}"
                )
            digest, _ = digest_of(self.path(blob), report)
            if digest != blob.sha256:
                raise OurFault(f"{manifest.name}: {self.path(blob)} has digest {digest}; {AGAIN}")

    @contextmanager
    def locked(self, name: str, report: Report) -> Iterator[None]:
        """Hold a name against every other process."""
        with exclusive(self._locks / f"{name}.lock", report):
            yield

    def stage(self, name: str) -> Path:
        """The folder in which `name` is pulled. Its lock must be held."""
        path = self._stage_path(name)
        with system_faults(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def leave_stage(self, name: str) -> None:
        """Keep what is under way only where a later pull can go on with some bytes of it.

        The lock of `name` must be held.
        """
        if not any(p.stat().st_size for p in self._stage_path(name).rglob("*") if p.is_file()):
            self.clear_stage(name)

    def clear_stage(self, name: str) -> None:
        """Forget what is under way. The lock of `name` must be held."""
        shutil.rmtree(self._stage_path(name), ignore_errors=True)

    def _collect(self) -> int:
        manifests = [self.get(name) for name in self.names()]
        named = {self.path(blob) for manifest in manifests for blob in manifest.blobs}
        freed = 0
        with system_faults(self._blobs):
            for path in self._blobs.glob("sha256-*"):
                if path not in named:
                    freed += path.stat().st_size
                    path.unlink()
        return freed

    @contextmanager
    def _changing_blobs(self) -> Iterator[None]:
        """Hold the blobs: for moments only, so that nobody needs to be told of the wait."""
        with exclusive(self._locks / ".blobs.lock", lambda _: None):
            with system_faults(self.root):
                for folder in (self._blobs, self._manifests):
                    folder.mkdir(parents=True, exist_ok=True)
            yield

    def _manifest_path(self, name: str) -> Path:
        return self._manifests / f"{name}.json"

    def _stage_path(self, name: str) -> Path:
        return self._staging / name


AGAIN = "run `meshslm models rm` with its name, and pull it again"
