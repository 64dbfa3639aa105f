"""Seeds that failed once, with the scenarios that they drew then: they must never fail again.

Rules:
- A case is the scenario itself: what a seed draws may change.
- The file is TOML for people to read; scenarios in it are JSON, without what is a default.
"""

from __future__ import annotations

import msgspec

from meshslm.sim.scenario import Misfit, Scenario, check_scenario
from meshslm.sim.swarm import Verdict
from meshslm.sim.tables import Table
from meshslm.toml_text import TomlText

HEAD = """\
# Simulations that failed once. The tests run each of them again; so does
# 'meshslm sim replay FILE'. Add one with 'meshslm sim swarm --keep FILE'.
"""


class Case(Table, frozen=True):
    """One of them."""

    seed: int
    why: str
    """What failed."""
    scenario: str
    """As JSON."""


class _File(Table, frozen=True):
    cases: tuple[Case, ...] = ()


def read_cases(name: str, text: str) -> tuple[tuple[Case, Scenario], ...]:
    """All cases of a file's text. Raises `OurFault` that names what is wrong."""
    source = TomlText(name, text)
    cases = source.decode(_File).cases
    return tuple((case, _scenario(source, place, case)) for place, case in enumerate(cases))


def _scenario(source: TomlText, place: int, case: Case) -> Scenario:
    try:
        scenario = msgspec.json.decode(case.scenario, type=Scenario)
        check_scenario(scenario)
    except (msgspec.MsgspecError, Misfit) as error:
        raise source.fault(("cases", place), f"scenario: {error}") from None
    return scenario


def with_case(name: str, text: str, verdict: Verdict) -> str:
    """The file's text with what failed in it, once. Raises `OurFault` where it is damaged."""
    scenario = msgspec.json.encode(verdict.scenario).decode()
    for case, _ in read_cases(name, text):
        if case.seed == verdict.seed and case.scenario == scenario:
            return text
    why = (verdict.wrong or ("unknown",))[0]
    values = {"seed": str(verdict.seed), "why": _quoted(why), "scenario": _quoted(scenario)}
    entry = "\n[[cases]]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
    return (text or HEAD) + entry


def _quoted(text: str) -> str:
    """A TOML string; JSON's escapes are TOML's too."""
    return msgspec.json.encode(text).decode()
