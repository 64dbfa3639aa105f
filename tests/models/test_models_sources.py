"""Sources as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.errors import OurFault
from meshslm.models.catalogue import built_in
from meshslm.models.model_library import name_of
from meshslm.models.sources import (
    FileSource,
    HttpsSource,
    PypiSource,
    Source,
    is_source,
    parse_source,
)


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("pypi:a-b==1.0/c/D.gguf", PypiSource("a-b", "1.0", "c/D.gguf"), "d"),
        ("pypi:ab/d.gguf", PypiSource("ab", None, "d.gguf"), "d"),
        ("https://h/x%20y/Z-1.Q8_0.gguf?a=1", None, "z-1.q8_0"),
        ("file:/a/B C.gguf", FileSource(Path("/a/B C.gguf")), "b-c"),
        ("file:///a/b.gguf", FileSource(Path("/a/b.gguf")), "b"),
        ("file:a/b.gguf", FileSource(Path("a/b.gguf")), "b"),
    ],
)
def test_a_source_and_the_name_of_its_model(text: str, source: Source | None, name: str) -> None:
    assert is_source(text)
    assert parse_source(text) == (source or HttpsSource(text))
    assert name_of(parse_source(text)) == name


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("pypi:a", "not of the form"),
        ("pypi:--pre=x/y", "not of the form"),
        ("pypi:a @ https==1/y", "not of the form"),
        ("pypi:a==1 --pre/y", "not of the form"),
        ("http://h/f.gguf", "not encrypted"),
        ("https:///f.gguf", "not a URL with a host"),
        ("https://h:99999/f", "not a URL"),
        ("https://h/a b", "not a URL with a host"),
        ("https://user:secret@h/f", "holds a user name"),
        ("file:", "names no file"),
        ("file://host/f", "names no file"),
        ("ftp:x", "no source; known are"),
    ],
)
def test_a_wrong_source_is_refused_with_the_reason(text: str, error: str) -> None:
    with pytest.raises(OurFault, match=error) as caught:
        parse_source(text)
    assert "secret" not in str(caught.value)


@given(
    st.text(max_size=60)
    | st.text(max_size=40).map("pypi:".__add__)
    | st.text().map("https://".__add__)
)
def test_any_text_is_a_source_or_our_fault(text: str) -> None:
    source: Source | None = None
    try:
        source = parse_source(text)
    except OurFault:
        return
    if isinstance(source, PypiSource):
        assert not source.package.startswith("-")  # or pip would take it for an option


def test_the_catalogue_is_pinned_and_its_sources_can_be_read() -> None:
    catalogue = built_in()
    assert catalogue.default.name == "smollm2-135m-instruct"
    for entry in catalogue.models:
        assert isinstance(parse_source(entry.source), PypiSource | HttpsSource)
        assert catalogue.find(entry.name) == entry
    with pytest.raises(OurFault, match="did you mean 'smollm2-135m-instruct'"):
        catalogue.find("smollm-135m-instruct")
