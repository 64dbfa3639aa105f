"""`meshslm profiles`: those that come along, and checking one's own."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import documented_keys

if TYPE_CHECKING:
    from tests.cli.conftest import Run

GOOD = """\
name = "cook"
model = "smollm2-135m-instruct"
system_prompt = "You cook."

[sampling]
temperature = 0.2

[[domains]]
domain = "cooking"
sentence = "Recipes and kitchens."
examples = ["How long do I boil an egg?"]
"""


def test_packaged_profiles(run: Run) -> None:
    listed = run("profiles", "list", "--json").json
    assert {profile["name"] for profile in listed} >= {"code", "writing", "general"}
    assert all(set(profile) == documented_keys("profiles list") for profile in listed)
    shown = run("profiles", "list").out
    for profile in listed:
        assert profile["name"] in shown


def test_every_packaged_profile_can_be_shown(run: Run) -> None:
    for listed in run("profiles", "list", "--json").json:
        name = listed["name"]
        assert run("profiles", "show", name, "--json").json == listed
        assert listed["model"] in run("profiles", "show", name).out
        assert tomllib.loads(run("profiles", "show", name, "--toml").out)["name"] == name


def test_checking_ones_own(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "cook.toml"
    file.write_text(GOOD)
    told = run("profiles", "check", str(file), "--json").json
    assert set(told[0]) == documented_keys("profiles check")
    assert told == [
        {
            "file": str(file),
            "name": "cook",
            "model": "smollm2-135m-instruct",
            "domains": ["cooking"],
            "examples": 1,
        }
    ]
    assert "cook on smollm2-135m-instruct" in run("profiles", "check", str(file)).out
    shown = run("profiles", "show", str(file)).out
    assert "temperature 0.2" in shown
    assert "How long do I boil an egg?" in shown
    assert run("profiles", "show", str(file), "--toml").out == GOOD


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (GOOD.replace("name =", "nmae ="), ["line 1", "nmae", "name"]),
        (GOOD.replace("0.2", '"hot"'), ["line 6", "temperature", "hot"]),
        (GOOD + GOOD[GOOD.index("[[domains]]") :], ["cooking", "twice"]),
        ("name = ", ["not valid TOML"]),
    ],
)
def test_a_bad_profile_names_line_and_key(
    run: Run, tmp_path: Path, broken: str, told: list[str]
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(broken)
    shown = run("profiles", "check", str(file))
    assert shown.code == 1
    assert "bad.toml" in shown.err
    for part in told:
        assert part in shown.err


def test_what_is_not_there(run: Run, tmp_path: Path) -> None:
    missing = run("profiles", "check", str(tmp_path / "none.toml"))
    assert missing.code == 1
    assert "none.toml" in missing.err
    unknown = run("profiles", "show", "cde")
    assert unknown.code == 1
    assert "code" in unknown.err
    assert "hint:" in unknown.err


def test_a_profile_that_is_no_text(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(b"\xff\xfe")
    shown = run("profiles", "check", str(file))
    assert shown.code == 1
    assert "UTF-8" in shown.err


def test_toml_and_json_exclude_each_other(run: Run) -> None:
    assert run("profiles", "show", "code", "--toml", "--json").code == 2
