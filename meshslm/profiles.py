"""A specialist, as somebody writes it down: a base model made good at something.

Rules:
- Pure: a text is handed in, nothing is read here.
- Sizes are bounded as on the wire, so that what loads can also be announced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from meshslm import limits
from meshslm.errors import OurFault
from meshslm.toml_reference import key_rows
from meshslm.toml_text import TomlText

_NAME = Meta(
    pattern=r"^[^\s\x00-\x1f\x7f@:/,]{1,32}\Z",
    extra={"expected": "1 to 32 characters, without blanks and '@:/,'"},
)
"""A name is part of selectors such as `domain:NAME` and `NAME@node`. 32 characters of any script
fit `limits.NAME_BYTES`."""

MODEL_NAME = Meta(
    pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z",
    extra={"expected": "lower-case letters, digits, '.', '_' and '-', at most 64"},
)
"""A model's name is a file name in the store, too."""

_TEXT = Meta(
    min_length=1,
    max_length=limits.CARD_TEXT_BYTES,
    extra={"expected": f"a text, at most {limits.CARD_TEXT_BYTES} bytes"},
)


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a domain is about, so that requests for it are recognised."""

    domain: Annotated[str, _NAME, Meta(description="Name of the domain: what clients select.")]
    sentence: Annotated[str, _TEXT, Meta(description="What it is about, in one sentence.")]
    examples: Annotated[
        tuple[Annotated[str, _TEXT], ...],
        Meta(
            max_length=limits.EXAMPLES_PER_CARD,
            description="Requests that belong to it, as people would write them; a dozen or more, "
            "with many different words.",
        ),
    ] = ()

    def __post_init__(self) -> None:
        for text in (self.sentence, *self.examples):
            size = len(text.encode())
            if size > limits.CARD_TEXT_BYTES:
                raise ValueError(
                    f"a sentence or example has {size} bytes, at most {limits.CARD_TEXT_BYTES}"
                )


class SamplingDefaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How tokens are chosen where the request does not say. What is missing: the engine's own."""

    temperature: (
        Annotated[
            float,
            Meta(ge=0, le=100, description="0 takes the likeliest token; more is more varied."),
        ]
        | None
    ) = None
    top_p: (
        Annotated[
            float, Meta(ge=0, le=1, description="Choose among the likeliest that sum to this.")
        ]
        | None
    ) = None
    top_k: (
        Annotated[int, Meta(ge=0, le=2**31, description="Choose among so many; 0 among all.")]
        | None
    ) = None
    min_p: (
        Annotated[
            float,
            Meta(
                ge=0, le=1, description="Leave out what is less likely than this part of the best."
            ),
        ]
        | None
    ) = None
    repeat_penalty: (
        Annotated[
            float, Meta(ge=0, le=100, description="Above 1: against repeating recent tokens.")
        ]
        | None
    ) = None
    frequency_penalty: (
        Annotated[float, Meta(ge=-2, le=2, description="Against tokens, by how often they came.")]
        | None
    ) = None
    presence_penalty: (
        Annotated[float, Meta(ge=-2, le=2, description="Against tokens that came at all.")] | None
    ) = None


class CascadeCheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which answers are given without asking a larger model, in steps that begin at its node."""

    always: Annotated[
        bool,
        Meta(
            description="Answer in steps without being asked to, where this profile is the first."
        ),
    ] = False
    confident: Annotated[
        float, Meta(ge=0, le=1, description="Least confidence, from the tokens' probabilities.")
    ] = 0.5
    min_characters: Annotated[
        int, Meta(ge=0, le=100_000, description="A shorter answer is not good enough.")
    ] = 0
    pattern: Annotated[
        str,
        Meta(
            max_length=1_000,
            description="A regular expression of Python that a good answer matches somewhere.",
        ),
    ] = ""

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"`pattern` is no regular expression: {error}") from error


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One specialist."""

    name: Annotated[str, _NAME, Meta(description="What it is called in the mesh.")]
    model: Annotated[
        str, MODEL_NAME, Meta(description="Base model: its name in the catalogue or the store.")
    ]
    adapter: Annotated[
        str,
        Meta(
            pattern=r"^(?:[a-z0-9][a-z0-9._-]{0,63})?\Z",
            description="LoRA adapter to answer with where a request names none: its name in the "
            "store. It must be one for `model`.",
            extra={"expected": "lower-case letters, digits, '.', '_' and '-', at most 64"},
        ),
    ] = ""
    draft: Annotated[
        str,
        Meta(
            pattern=r"^(?:[a-z0-9][a-z0-9._-]{0,63})?\Z",
            description="Smaller model with the same tokens that guesses what `model` will say, "
            "so that answers come faster and stay the same: its name in the catalogue or the "
            "store. Profiles on one model share its draft.",
            extra={"expected": "lower-case letters, digits, '.', '_' and '-', at most 64"},
        ),
    ] = ""
    system_prompt: Annotated[
        str,
        Meta(
            max_length=limits.SYSTEM_PROMPT_CHARACTERS,
            description="Put before every conversation that has no system message of its own.",
        ),
    ] = ""
    max_tokens: Annotated[
        int,
        Meta(
            ge=0,
            le=limits.MAX_TOKENS,
            description="Length of an answer where the request does not say; 0: what the context "
            "has room for.",
        ),
    ] = 0
    load: Annotated[
        Literal["demand", "start", "always"],
        Meta(
            description="When its model is in memory: from its first request on, from the start "
            "on if it fits beside the others, or always. Only the last is never unloaded."
        ),
    ] = "start"
    price: Annotated[
        float,
        Meta(ge=0, le=1e9, description="Of a million tokens, in a unit that the mesh agrees on."),
    ] = 0.0
    private: Annotated[
        bool,
        Meta(
            description="What is asked of its domains does not leave the mesh: a request that is, "
            "or may well be, of one of them never goes to an upstream unless it names that."
        ),
    ] = False
    sampling: Annotated[SamplingDefaults, Meta(description="How tokens are chosen; see below.")] = (
        SamplingDefaults()
    )
    cascade: Annotated[
        CascadeCheck,
        Meta(description="Which answers are given without asking a larger model; see below."),
    ] = CascadeCheck()
    domains: Annotated[
        tuple[Card, ...],
        Meta(
            max_length=limits.DOMAINS_PER_SPECIALIST, description="What it is good at; see below."
        ),
    ] = ()


def drafts_of(profiles: Iterable[Profile]) -> dict[str, str]:
    """The draft of each model that has one.

    Raises `OurFault` where two profiles name different ones for a model.
    """
    named: dict[str, Profile] = {}
    for profile in profiles:
        if profile.draft:
            other = named.setdefault(profile.model, profile)
            if other.draft != profile.draft:
                raise OurFault(
                    f"profile {other.name!r} names {other.draft!r} as the draft of "
                    f"{profile.model!r}, and profile {profile.name!r} names {profile.draft!r}: "
                    "profiles on one model share one draft"
                )
    return {model: profile.draft for model, profile in named.items()}


def parse_profile(name: str, text: str) -> Profile:
    """The profile that `text` describes; `name` is what errors call the file.

    Raises `OurFault` that names the file, the line and the key.
    """
    source = TomlText(name, text)
    profile = source.decode(Profile)
    if profile.draft == profile.model:
        raise source.fault(("draft",), f"{profile.draft!r} cannot be its own draft")
    seen: set[str] = set()
    for index, card in enumerate(profile.domains):
        if card.domain in seen:
            raise source.fault(("domains", index, "domain"), f"domain {card.domain!r} comes twice")
        seen.add(card.domain)
    return profile


def reference() -> str:
    """Every key of a profile, as Markdown."""
    parts: list[str] = []
    for title, kind in (
        ("The profile", Profile),
        ("`[sampling]`", SamplingDefaults),
        ("`[cascade]`", CascadeCheck),
        ("`[[domains]]`", Card),
    ):
        parts += [f"## {title}", "", kind.__doc__ or "", ""]
        parts += ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
        for row in key_rows(kind):
            default = f"`{row.default}`" if row.default else ""
            parts.append(f"| `{row.name}` | {row.kind} | {default} | {row.description} |")
        parts.append("")
    return "\n".join(parts)
