"""Where the key of an upstream is read from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from meshslm.errors import OurFault

MOST_CHARACTERS = 4096


def read_key(file: str, variable: str, environment: Mapping[str, str]) -> str:
    """The key in a file, or in a variable; empty where neither is named.

    Raises `OurFault`, without a word of the key, where it is not there or is no key.
    """
    if file and variable:
        raise OurFault("[upstream] has a key_file and a key_variable; give one of them")
    if file:
        where = f"the key file {file}"
        try:
            key = Path(file).expanduser().read_text(encoding="utf-8")
        except OSError as error:
            raise OurFault(f"cannot read {where}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise OurFault(f"{where} is not UTF-8 text") from None
    elif variable:
        where = f"the variable {variable}, which should hold the upstream's key,"
        key = environment.get(variable, "")
    else:
        return ""
    key = key.strip()
    if not key:
        raise OurFault(f"{where} is empty")
    if len(key) > MOST_CHARACTERS or not (key.isascii() and key.isprintable()) or " " in key:
        raise OurFault(f"{where} holds no key: one is a single word of printable ASCII")
    return key
