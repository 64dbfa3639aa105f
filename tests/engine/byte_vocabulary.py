"""A vocabulary without a model: every byte is a token, some texts are, and some control tokens."""

from __future__ import annotations

from collections.abc import Sequence

TEXTS = (
    *('{"', '": ', '", "', "true", "false", "null", '"}', "}\n", "\n\n", "  ", "the", " a", "é"),
    *("<tool", "_call", '{"name', '": "', "</", "think>", "arguments", "}]", "1.", "00", "-"),
)  # fmt: skip


class ByteVocabulary:
    """Implements what the engine asks of a vocabulary."""

    def __init__(self, controls: Sequence[str] = ("<|end|>", "<|begin|>")) -> None:
        self._pieces = [bytes([byte]) for byte in range(256)] + [text.encode() for text in TEXTS]
        self._controls = {text: len(self._pieces) + place for place, text in enumerate(controls)}
        self._pieces += [b""] * len(controls)
        self.size = len(self._pieces)
        self.eos = self._controls["<|end|>"]
        self.bos = -1
        self.adds_bos = False

    def tokens(self, text: str, *, special: bool, begins: bool = False) -> list[int]:
        found: list[int] = []
        at = 0
        while at < len(text):
            control = next((t for t in self._controls if special and text.startswith(t, at)), "")
            if control:
                found.append(self._controls[control])
                at += len(control)
            else:
                found += [self._pieces.index(bytes([byte])) for byte in text[at].encode()]
                at += 1
        return found

    def pieces(self) -> list[bytes]:
        return list(self._pieces)

    def piece(self, token: int) -> bytes:
        return self._pieces[token]

    def control_tokens(self) -> dict[str, int]:
        return dict(self._controls)

    def ends(self, token: int) -> bool:
        return token == self.eos

    def text(self, tokens: Sequence[int]) -> str:
        return b"".join(self._pieces[token] for token in tokens).decode(errors="replace")
