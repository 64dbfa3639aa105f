"""Scenarios from TOML: what is right is read, what is wrong is told with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshslm.errors import OurFault
from meshslm.sim.corpus import TOPICS
from meshslm.sim.fault_kinds import Churn, Kill, Partition, end_s
from meshslm.sim.scenario import Scenario, default_scenario, load_scenario, resized

EXAMPLES = Path(__file__).parents[2] / "examples" / "scenarios"

TWO_SPLITS = """
name = "x"
faults = [
  { kind = "partition", at_s = 1, for_s = 9 },
  { kind = "partition", at_s = 5, for_s = 1 },
]
"""
SAME_NAMES = """
name = "x"
profiles = [{ name = "p", domains = ["law"] }, { name = "p", domains = ["law"] }]
"""
UNLIKE_TWINS = """
name = "x"
profiles = [
  { name = "p", domains = ["law"], model = "m" },
  { name = "q", domains = ["law"], model = "m", slots = 2 },
]
"""


def read(tmp_path: Path, text: str) -> Scenario:
    file = tmp_path / "given.toml"
    file.write_text(text)
    return load_scenario(file)


def test_a_scenario_is_read(tmp_path: Path) -> None:
    scenario = read(
        tmp_path,
        """
        name = "mine"
        nodes = 5
        [network]
        loss = 0.25
        [[faults]]
        kind = "kill"
        at_s = 10
        nodes = [2]
        back_after_s = 3.5
        [[faults]]
        kind = "partition"
        at_s = 20
        for_s = 4
        shares = [1, 2]
        """,
    )
    assert scenario.nodes == 5
    assert scenario.network.loss == 0.25
    assert scenario.faults == (
        Kill(at_s=10, nodes=(2,), back_after_s=3.5),
        Partition(at_s=20, for_s=4, shares=(1, 2)),
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name = \n", ["line 1", "not valid TOML"]),
        ("nodes = 3", ["line 1", "name is missing"]),
        ('name = "x"\ncolour = "red"', ["line 2", "colour"]),
        ('name = "x"\nnodez = 3', ["line 2", "did you mean 'nodes'"]),
        ('name = "x"\nnodes = "many"', ["line 2", "nodes", "a whole number"]),
        ('name = "x"\nnodes = 0', ["line 2", "nodes"]),
        ('name = "x"\nnodes = 100000', ["line 2", "nodes"]),
        ('name = "x"\nseconds = inf', ["line 2", "seconds"]),
        ('name = "x"\nseconds = 1e9', ["line 2", "seconds"]),
        ('name = "x"\nexpect = "maybe"', ["line 2", "expect"]),
        ('name = "x"\n[network]\nloss = 1.5', ["line 3", "network.loss"]),
        ('name = "x"\n[network]\nlost = 0.5', ["line 3", "network", "'loss'"]),
        ('name = "x"\n[[faults]]\nkind = "flood"\nat_s = 1', ["line 3", "flood", "faults[0]"]),
        ('name = "x"\n[[faults]]\nkind = "kil"\nat_s = 1', ["line 3", "one of busy, churn"]),
        ('name = "x"\n[[faults]]\nkind = "hang"\nat_s = 1\nfor = 3', ["line 5", "'for_s'"]),
        ('name = "x"\n[[faults]]\nkind = "kill"', ["faults[0].at_s is missing"]),
        ('name = "x"\n[[faults]]\nkind = "kill"\nat_s = 1\nwho = 3', ["line 5", "who"]),
        ('name = "x"\n[[faults]]\nkind = "kill"\nat_s = 61', ["line 2", "faults[0]", "second 61"]),
        ('name = "x"\n[[faults]]\nkind = "kill"\nat_s = 1\nnodes = [12]', ["line 5", "12 of 12"]),
        (TWO_SPLITS, ["line 3", "faults", "shares"]),
        ('name = "x"\n[[profiles]]\nname = "p"\ndomains = ["magic"]', ["magic", "profiles[0]"]),
        ('name = "x"\n[[profiles]]\nname = "p"\ndomains = []', ["line 2", "profiles"]),
        ('name = "x"\n[settings]\nstrategy = "luck"', ["line 3", "luck", "round-robin"]),
        (SAME_NAMES, ["twice", "profiles[1]"]),
        (UNLIKE_TWINS, ["line 5", "share a model", "profiles[1]"]),
        ('name = "x"\n[workload]\ntokens_long = [9, 3]', ["line 3", "workload.tokens_long"]),
        ('name = "x"\n[workload]\ndomain_share = 0.7\nmodel_share = 0.7', ["line 2", "workload"]),
    ],
)
def test_what_is_wrong_is_told_with_its_key(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(OurFault) as caught:
        read(tmp_path, text)
    for part in ("given.toml", *parts):
        assert part in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(OurFault, match="cannot read"):
        load_scenario(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OurFault, match="not UTF-8"):
        load_scenario(tmp_path / "binary.toml")


def test_resizing_keeps_the_scenario_whole() -> None:
    scenario = Scenario(name="x", faults=(Kill(at_s=30, nodes=(11,)),))
    assert resized(scenario, nodes=20, seconds=40).nodes == 20
    with pytest.raises(OurFault, match="11 of 10"):
        resized(scenario, nodes=10)
    with pytest.raises(OurFault, match="second 30"):
        resized(scenario, seconds=20)
    with pytest.raises(OurFault, match="nodes"):
        resized(scenario, nodes=0)


@pytest.mark.parametrize("seconds", [None, 0.5, 5, 60, 600])
def test_the_default_fits_any_time(seconds: float | None) -> None:
    scenario = default_scenario(seconds)
    assert resized(scenario) == scenario
    assert max(map(end_s, scenario.faults)) < scenario.seconds


def test_the_end_of_a_fault_is_when_the_mesh_is_whole_again() -> None:
    assert end_s(Kill(at_s=3)) == 3
    assert end_s(Kill(at_s=3, back_after_s=4)) == 7
    assert end_s(Partition(at_s=3, for_s=2)) == 5
    assert end_s(Churn(from_s=1, to_s=9, every_s=1, down_s=2)) == 11


def test_every_example_is_sound_and_says_what_it_is() -> None:
    files = sorted(EXAMPLES.glob("*.toml"))
    assert files
    for file in files:
        scenario = load_scenario(file)
        assert scenario.name == file.stem
        assert scenario.summary


def test_no_prompt_is_in_a_card() -> None:
    for topic in TOPICS:
        assert not set(topic.prompts) & set(topic.card.examples)
        assert len(set(topic.prompts)) == len(topic.prompts)
