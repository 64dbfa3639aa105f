"""Text in pieces against the definition over the whole."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from meshslm.engine.text import TextStream

stops = st.lists(st.text("abcé", min_size=1, max_size=4), max_size=4)


def cut(text: str, stops: list[str]) -> tuple[str, str]:
    """The definition: up to the stop string that is complete first, of those the longest."""
    for end in range(len(text) + 1):
        met = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if met:
            longest = max(met, key=len)
            return text[: end - len(longest)], longest
    return text, ""


def pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(raw), *(place % (len(raw) + 1) for place in cuts)})
    return [raw[a:b] for a, b in pairwise(places)]


@given(st.text("abcé日", max_size=40), stops, st.lists(st.integers(0, 200), max_size=20))
@example("abcabcabd", ["abcabd"], [3, 6])
@example("abcd", ["abcd", "bc"], [])
def test_the_same_as_over_the_whole(text: str, stops: list[str], cuts: list[int]) -> None:
    stream = TextStream(stops)
    shown = ""
    for piece in pieces(text.encode(), cuts):
        shown += stream.feed(piece)
    shown += stream.close()
    assert (shown, stream.stopped) == cut(text, stops)


@given(st.text("abcé", max_size=40), stops, st.lists(st.integers(0, 200), max_size=20))
def test_nothing_is_held_back_that_cannot_become_a_stop(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    stream = TextStream(stops)
    shown, given_so_far = "", b""
    for piece in pieces(text.encode(), cuts):
        shown += stream.feed(piece)
        given_so_far += piece
        if stream.stopped:
            return
        whole = given_so_far.decode(errors="ignore")
        held = whole[len(shown) :]
        assert whole.startswith(shown)
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)


@given(st.binary(max_size=60), st.lists(st.integers(0, 200), max_size=20))
def test_any_bytes_become_text(raw: bytes, cuts: list[int]) -> None:
    stream = TextStream()
    shown = "".join(stream.feed(piece) for piece in pieces(raw, cuts)) + stream.close()
    assert shown == raw.decode(errors="replace")


def test_characters_are_never_cut() -> None:
    stream = TextStream()
    assert [stream.feed(bytes([byte])) for byte in "é日".encode()] == ["", "é", "", "", "日"]


def test_after_a_stop_nothing_is_shown() -> None:
    stream = TextStream(["END"])
    assert stream.feed(b"abcENDdef") == "abc"
    assert stream.stopped
    assert stream.feed(b"more") == stream.close() == ""
