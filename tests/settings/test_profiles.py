"""Profiles: bounds, errors, and the packaged ones with the classifier that has to know them."""

from __future__ import annotations

import pytest

from meshslm import data, limits
from meshslm.core.classify import Classifier
from meshslm.errors import OurFault
from meshslm.profiles import Profile, drafts_of, parse_profile
from meshslm.wire.messages import DomainCard

HEAD = 'name = "n"\nmodel = "m"\n'
CARD = '[[domains]]\ndomain = "d"\nsentence = "s"\n'


def test_a_small_profile() -> None:
    profile = parse_profile("p.toml", HEAD + "[sampling]\ntemperature = 1\n" + CARD)
    assert profile.name == "n"
    assert profile.sampling.temperature == 1.0
    assert profile.sampling.top_p is None
    assert [card.domain for card in profile.domains] == ["d"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('name = "n"\n', "p.toml, line 1: model is missing"),
        (
            'name = "a@b"\nmodel = "m"',
            (
                "p.toml, line 1: name: expected 1 to 32 characters, without blanks and "
                "'@:/,'; got 'a@b'"
            ),
        ),
        (
            'name = "n"\nmodel = "../m"',
            (
                "p.toml, line 2: model: expected lower-case letters, digits, '.', '_' and '-', "
                "at most 64; got '../m'"
            ),
        ),
        (
            HEAD + "[sampling]\ntemprature = 1",
            "p.toml, line 4: [sampling] has no key 'temprature'; did you mean 'temperature'?",
        ),
        (
            HEAD + "[sampling]\n\ntop_p = 1.5",
            "p.toml, line 5: sampling.top_p: expected a number <= 1.0; got 1.5",
        ),
        (
            HEAD + CARD + 'examples = [\n  "a",\n  3,\n]',
            "p.toml, line 8: domains[0].examples[1]: expected a text, at most 1024 bytes; got 3",
        ),
        (HEAD + CARD + "\n" + CARD, "p.toml, line 8: domain 'd' comes twice"),
        (HEAD + 'draft = "m"', "p.toml, line 3: 'm' cannot be its own draft"),
        (
            HEAD + 'draft = "a/b"',
            (
                "p.toml, line 3: draft: expected lower-case letters, digits, '.', '_' and '-', "
                "at most 64; got 'a/b'"
            ),
        ),
        (HEAD + "price = -1.0", "p.toml, line 3: price: expected a number >= 0.0; got -1.0"),
    ],
)
def test_an_error_names_file_line_and_key(text: str, error: str) -> None:
    with pytest.raises(OurFault) as caught:
        parse_profile("p.toml", text)
    assert str(caught.value) == error


def test_texts_are_bounded_in_bytes_as_on_the_wire() -> None:
    fits = "ä" * (limits.CARD_TEXT_BYTES // 2)
    parse_profile("p.toml", HEAD + CARD + f'examples = ["{fits}"]')
    with pytest.raises(OurFault, match=r"line 3: domains\[0\]: .* has 1026 bytes, at most 1024"):
        parse_profile("p.toml", HEAD + CARD + f'examples = ["{fits}ä"]')


def test_a_name_that_loads_fits_the_wire() -> None:
    profile = parse_profile("p.toml", f'name = "{"𝄞" * 32}"\nmodel = "m"')
    assert len(profile.name.encode()) <= limits.NAME_BYTES


def test_profiles_on_one_model_share_its_draft() -> None:
    one, two = (Profile(name=name, model="m", draft="d") for name in ("a", "b"))
    other = Profile(name="c", model="m", draft="e")
    assert drafts_of([Profile(name="x", model="m"), one, two]) == {"m": "d"}
    with pytest.raises(OurFault, match=r"'a' names 'd' .* of 'm', and profile 'c' names 'e'"):
        drafts_of([one, other])


# --- the packaged ones --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def packaged() -> dict[str, Profile]:
    return {
        name: parse_profile(f"{name}.toml", text) for name, text in data.profile_texts().items()
    }


def test_the_packaged_profiles(packaged: dict[str, Profile]) -> None:
    assert sorted(packaged) == ["classifier", "code", "embeddings", "general", "writing"]
    for name, profile in packaged.items():
        assert profile.name == name
        if name in ("classifier", "embeddings"):
            assert not profile.domains, "nobody is routed to it for an answer"
            continue
        (card,) = profile.domains
        assert card.domain == name
        assert len(set(card.examples)) == len(card.examples) >= 12


HELD_OUT = {
    "code": (
        "Write a function that merges two sorted lists",
        "Write a program to print the Fibonacci series",
        "Why is my for loop skipping the last element?",
        "What does 'undefined is not a function' mean?",
        "How can I connect to a PostgreSQL database from Python?",
        "Write a Python class for a bank account",
        "git push was rejected, what now",
        "write a shell script to back up a directory",
        "What is recursion?",
        "explain big O of binary search",
        "Create a React button component",
        "cast a float to an int in C",
        "how to use a virtual environment with pip",
        "Write a function that returns the largest number in a list",
    ),
    "writing": (
        "Write a story about a lost dog",
        "Write a formal letter to the bank",
        "Make this sentence sound better",
        "Write a poem for my mother",
        "Summarise this report",
        "A short tale about a brave mouse",
        "Write a speech for the opening of a school",
        "Write an email to a customer about a delay",
        "edit my essay",
        "Write a dramatic monologue",
        "Write a blog post about gardening",
        "proofread this: their going too the store",
    ),
    "general": (
        "What is the largest ocean?",
        "Who was Cleopatra?",
        "how do I make tea",
        "How old is the universe?",
        "What's the weather like in spring in Norway?",
        "How many grams are in a pound?",
        "hello",
        "Can you help me choose a laptop?",
        "why is the grass green",
        "Which sport is the most popular?",
        "What are the side effects of aspirin?",
        "Where do penguins live?",
    ),
}
"""Requests that were written after the profiles and not used to improve them."""


def test_the_classifier_knows_requests_that_it_never_saw(packaged: dict[str, Profile]) -> None:
    cards = [
        DomainCard(card.domain, card.sentence, card.examples)
        for profile in packaged.values()
        for card in profile.domains
    ]
    classifier = Classifier(cards)
    wrong = [
        text
        for domain, texts in HELD_OUT.items()
        for text in texts
        if classifier.classify(text)[0].domain != domain
    ]
    total = sum(map(len, HELD_OUT.values()))
    assert len(wrong) / total <= 0.15, wrong  # 3 of 38 when it was written
