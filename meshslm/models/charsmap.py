"""What a tokenizer's normalisation turns characters into, as llama.cpp reads it from a GGUF file.

It is a trie over the bytes of UTF-8, laid out as a double array: 32 bits a node, children found by
XOR with the byte. Behind it stand the replacements, each ended by a zero byte.

Format: Yata et al., "A compact static double-array keeping character codes", Information Processing
and Management 43 (2007), with the bits where SentencePiece has them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

_LEAF: Final = 1 << 8
"""A node at whose end a replacement begins; its place is in the child with label 0."""
_VALUE: Final = 1 << 31
_OFFSETS: Final = 1 << 21

_Node = dict[int, "_Node | int"]


def charsmap(forms: Mapping[int, str]) -> bytes:
    """By code point. Raises `ValueError` for what cannot stand there."""
    texts = bytearray()
    places: dict[str, int] = {}
    root: _Node = {}
    for code, form in sorted(forms.items()):
        if "\0" in form or not code:
            raise ValueError(f"character {code} has a normal form with a zero byte")
        if form not in places:
            places[form] = len(texts)
            texts += form.encode() + b"\0"
        *path, last = chr(code).encode()
        node = root
        for byte in path:
            child = node.setdefault(byte, {})
            assert isinstance(child, dict)
            node = child
        node[last] = {0: places[form]}
    array = _double_array(root)
    return struct.pack(f"<I{len(array)}I", 4 * len(array), *array) + bytes(texts)


def _double_array(root: _Node) -> list[int]:
    units: dict[int, int] = {0: 0}
    waiting: list[tuple[int, _Node]] = [(0, root)]
    first = 1
    while waiting:
        at, node = waiting.pop()
        while first in units:
            first += 1
        base = first
        while base == at or any(base ^ label in units for label in node):
            base += 1
        if at ^ base >= _OFFSETS:
            raise ValueError("too many normal forms")
        units[at] |= (at ^ base) << 10
        for label, child in node.items():
            if isinstance(child, int):
                units[base ^ label] = _VALUE | child
                units[at] |= _LEAF
            else:
                units[base ^ label] = label
                waiting.append((base ^ label, child))
    size = (max(units) | 0xFF) + 1
    return [units.get(index, _VALUE) for index in range(size)]
