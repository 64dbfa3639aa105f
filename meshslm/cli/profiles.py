"""`meshslm profiles`: the specialists that come with the program, and checking one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshslm.cli.effective import read_text
from meshslm.cli.failures import fail
from meshslm.cli.screen import json_option, print_fields, print_json, print_table

if TYPE_CHECKING:
    from meshslm.profiles import Profile


@click.group()
def profiles() -> None:
    """List and check specialist profiles.

    A profile is a TOML file: a base model, a system prompt, sampling defaults, and the domains it
    is good at, each with a sentence and examples by which requests are recognised.
    """


@profiles.command(name="list")
@json_option
def list_profiles(as_json: bool) -> None:
    """List the profiles that come with meshslm."""
    from msgspec import to_builtins

    packaged = packaged_profiles()
    if as_json:
        print_json([to_builtins(profile) for profile in packaged.values()])
        return
    print_table(
        ("name", "model", "domains", "about"),
        [
            (
                profile.name,
                profile.model,
                ", ".join(card.domain for card in profile.domains) or "any",
                profile.domains[0].sentence if profile.domains else "-",
            )
            for profile in packaged.values()
        ],
    )


@profiles.command()
@click.argument("profile")
@click.option("--toml", "as_toml", is_flag=True, help="Print the file itself, to start one's own.")
@json_option
def show(profile: str, as_toml: bool, as_json: bool) -> None:
    """Show one profile: a packaged one by name, or a .toml file."""
    from msgspec import to_builtins

    if as_toml and as_json:
        raise click.UsageError("--toml and --json exclude each other")
    source, text = profile_text(profile)
    if as_toml:
        click.echo(text, nl=False)
        return
    found = _parse(source, text)
    if as_json:
        print_json(to_builtins(found))
        return
    _print_profile(found)


@profiles.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@json_option
def check(files: tuple[str, ...], as_json: bool) -> None:
    """Check profile files; an error names the line and the key."""
    found = [(file, _parse(file, read_text(Path(file)))) for file in files]
    if as_json:
        print_json([_summary(file, profile) for file, profile in found])
        return
    for file, profile in found:
        told = _summary(file, profile)
        click.echo(
            f"{file}: {profile.name} on {profile.model}, domains: {len(told['domains'])}, "
            f"examples: {told['examples']}"
        )


def packaged_profiles() -> dict[str, Profile]:
    """The profiles that come with the program, by name."""
    from meshslm import data

    return {name: _parse(name, text) for name, text in data.profile_texts().items()}


def load_profile(reference: str) -> Profile:
    """A packaged profile by name, or one's own by path. Raises `OurFault`."""
    return _parse(*profile_text(reference))


def profile_text(reference: str) -> tuple[str, str]:
    """Name for errors, and text, of a packaged profile or a file. Raises `OurFault`."""
    from meshslm import data

    if reference.endswith(".toml"):
        return reference, read_text(Path(reference).expanduser())
    texts = data.profile_texts()
    if reference not in texts:
        fail(
            f"there is no packaged profile {reference!r}; there are {', '.join(texts)}",
            "a profile of your own is named by the path of its .toml file",
        )
    return reference, texts[reference]


def _parse(source: str, text: str) -> Profile:
    from meshslm.profiles import parse_profile

    return parse_profile(source, text)


def _summary(file: str, profile: Profile) -> dict[str, Any]:
    return {
        "file": file,
        "name": profile.name,
        "model": profile.model,
        "domains": [card.domain for card in profile.domains],
        "examples": sum(len(card.examples) for card in profile.domains),
    }


def _print_profile(profile: Profile) -> None:
    sampling = ", ".join(
        f"{name} {value}"
        for name in profile.sampling.__struct_fields__
        if (value := getattr(profile.sampling, name)) is not None
    )
    print_fields(
        [
            ("name", profile.name),
            ("model", profile.model),
            ("draft", profile.draft or "-"),
            ("system prompt", profile.system_prompt.strip() or "-"),
            ("max tokens", profile.max_tokens or "as the context has room for"),
            ("sampling", sampling or "the engine's own"),
            ("price", profile.price or "free"),
        ]
    )
    for card in profile.domains:
        click.echo(f"\n{card.domain}: {card.sentence}")
        for example in card.examples:
            click.echo(f"  - {example}")
