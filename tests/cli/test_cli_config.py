"""`meshslm config`: which value wins, and how a bad one is told."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshslm.cli.effective import SETTING_OPTIONS
from meshslm.settings import KEYS
from tests.cli.conftest import documented_keys

if TYPE_CHECKING:
    from tests.cli.conftest import Run

SETTING_NAMES = set(KEYS)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "node.toml"
    file.write_text('[gateway]\nport = 9001\n\n[node]\nname = "from-file"\n')
    return file


def test_flags_win_over_environment_over_file_over_default(
    run: Run, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHSLM_GATEWAY_PORT", "9002")
    monkeypatch.setenv("MESHSLM_NODE_MESH", "from-environment")
    told = run("config", "--json", "--config", str(config_file), "--gateway-port", "9003").json
    assert told["gateway.port"] == {"value": 9003, "source": "flag"}
    assert told["node.mesh"] == {"value": "from-environment", "source": "MESHSLM_NODE_MESH"}
    assert told["node.name"]["value"] == "from-file"
    assert told["node.name"]["source"] == f"{config_file}, line 5"
    assert told["link.mdns"]["source"] == "default"
    assert set(told) == SETTING_NAMES
    assert all(set(entry) == documented_keys("config") for entry in told.values())


def test_every_option_sets_its_setting(run: Run) -> None:
    given = {
        "name": "n",
        "mesh": "m",
        "data_dir": "/d",
        "models_dir": "/m",
        "profile": "code",
        "listen": "/ip4/127.0.0.1/tcp/1",
        "bootstrap": "/ip4/127.0.0.1/tcp/2",
        "mdns": None,
        "relay": "on",
        "open": None,
        "gateway_host": "::1",
        "gateway_port": "8",
        "threads": "3",
        "log_level": "debug",
        "log_format": "json",
    }
    assert set(given) == set(SETTING_OPTIONS)
    for parameter, value in given.items():
        option = "--" + parameter.replace("_", "-")
        told = run("config", "--json", option, *([value] if value is not None else [])).json
        changed = {key for key, entry in told.items() if entry["source"] != "default"}
        assert changed == {SETTING_OPTIONS[parameter]}


def test_options_that_may_come_twice(run: Run) -> None:
    told = run("config", "--json", "--profile", "code", "--profile", "writing", "--no-mdns").json
    assert told["node.profiles"]["value"] == ["code", "writing"]
    assert told["link.mdns"] == {"value": False, "source": "flag"}


def test_no_profiles(run: Run) -> None:
    assert run("config", "--json", "--no-profiles").json["node.profiles"]["value"] == []
    both = run("config", "--no-profiles", "--profile", "code")
    assert both.code == 2
    assert "exclude each other" in both.err


def test_the_config_file_may_come_from_the_environment(
    run: Run, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHSLM_CONFIG", str(config_file))
    assert run("config", "--json").json["gateway.port"]["value"] == 9001


def test_the_default_place_is_read(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "xdg_config_home" / "meshslm"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('[node]\nname = "here"\n')
    assert run("config", "--json").json["node.name"]["value"] == "here"


def test_toml_says_the_same(run: Run, tmp_path: Path) -> None:
    first = run("config", "--toml", "--gateway-port", "1234", "--profile", "code").out
    assert tomllib.loads(first)["gateway"]["port"] == 1234
    file = tmp_path / "again.toml"
    file.write_text(first)
    told = run("config", "--json", "--config", str(file)).json
    assert told["gateway.port"]["value"] == 1234
    assert told["node.profiles"]["value"] == ["code"]


def test_a_table_for_people(run: Run) -> None:
    shown = run("config", "--name", "me")
    assert shown.code == 0
    rows = {line.split()[0]: line.split() for line in shown.out.splitlines()}
    assert rows["node.name"] == ["node.name", "me", "flag"]
    assert rows["link.bootstrap"][1] == "none"


def test_toml_and_json_exclude_each_other(run: Run) -> None:
    assert run("config", "--toml", "--json").code == 2


def test_a_missing_config_file(run: Run, tmp_path: Path) -> None:
    shown = run("config", "--config", str(tmp_path / "none.toml"))
    assert shown.code == 1
    assert "none.toml" in shown.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[gateway]\nport = 70000\n", ["line 2", "gateway.port", "70000"]),
        ("[gateway]\nprot = 7000\n", ["line 2", "prot", "port"]),
        ("[gateway\n", ["line 1"]),
        ("[gate]\nport = 1\n", ["line 1", "gate"]),
    ],
)
def test_a_bad_config_names_line_and_key(
    run: Run, tmp_path: Path, text: str, told: list[str]
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    shown = run("config", "--config", str(file))
    assert shown.code == 1
    assert "bad.toml" in shown.err
    for part in told:
        assert part in shown.err
    assert "Traceback" not in shown.err


def test_a_config_that_is_no_text(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(b"\xff\xfe\x00")
    shown = run("config", "--config", str(file))
    assert shown.code == 1
    assert "bad.toml" in shown.err


def test_a_bad_flag_and_a_bad_variable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run("config", "--gateway-port", "70000")
    assert shown.code == 1
    assert "gateway.port" in shown.err
    monkeypatch.setenv("MESHSLM_GATEWAY_PRT", "1")
    shown = run("config")
    assert shown.code == 1
    assert "MESHSLM_GATEWAY_PORT" in shown.err
