"""Events are one line each, however they are cut and whatever is in them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.api import sse

TEXTS = st.text(
    alphabet=st.characters(exclude_categories=["Cs"])
    | st.sampled_from("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"),
    max_size=30,
)


@given(text=TEXTS)
def test_no_text_breaks_its_line(text: str) -> None:
    encoded = sse.text_json(text)
    assert json.loads(encoded) == text
    assert len(encoded.decode().splitlines()) == 1


@given(texts=st.lists(TEXTS, max_size=8), data=st.data())
def test_a_stream_may_be_cut_anywhere(texts: list[str], data: st.DataObject) -> None:
    stream = b"".join(sse.event({"text": text}) for text in texts) + sse.DONE_EVENT
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    decoder = sse.EventDecoder()
    events: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += decoder.feed(stream[start:end])
    assert events.pop() == sse.DONE
    assert [json.loads(event)["text"] for event in events] == texts


def test_comments_other_fields_and_carriage_returns_are_passed_over() -> None:
    decoder = sse.EventDecoder()
    assert decoder.feed(b": ping\r\nevent: x\r\ndata:{}\r\n\r\nid: 5\n\n") == [b"{}"]


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES", 100)
    decoder = sse.EventDecoder()
    decoder.feed(b"data: " + b"x" * 90)
    with pytest.raises(ValueError, match="longer than 100 bytes"):
        decoder.feed(b"x" * 10)
