"""Settings: which source wins, and what is said where one is wrong."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.errors import OurFault
from meshslm.settings import (
    KEYS,
    Directories,
    Settings,
    default_directories,
    effective,
    render_toml,
    variable_of,
)
from meshslm.toml_reference import toml_value
from meshslm.toml_text import TomlText

HERE = default_directories({}, PurePosixPath("/home/u"))
ROOT = Path(__file__).parents[2]


def test_defaults() -> None:
    found = effective(HERE)
    assert found.settings.node.data_dir == "/home/u/.local/share/meshslm"
    assert found.settings.node.models_dir == "/home/u/.local/share/meshslm/models"
    assert found.settings.gateway.host == "127.0.0.1"
    assert set(found.sources.values()) == {"default"}
    assert set(found.sources) == set(KEYS)


def test_directories_follow_xdg_and_ignore_relative_ones() -> None:
    environment = {"XDG_DATA_HOME": "/data", "XDG_CONFIG_HOME": "relative"}
    assert default_directories(environment, PurePosixPath("/home/u")) == Directories(
        home=PurePosixPath("/home/u"),
        config_file=PurePosixPath("/home/u/.config/meshslm/config.toml"),
        data=PurePosixPath("/data/meshslm"),
        models=PurePosixPath("/data/meshslm/models"),
    )


def test_a_flag_wins_over_the_environment_and_that_over_the_file() -> None:
    file = TomlText("c.toml", "[gateway]\nport = 1\nhost = 'a'\n[log]\n\nlevel = 'debug'\n")
    found = effective(
        HERE,
        file=file,
        environment={"MESHSLM_GATEWAY_PORT": "2", "MESHSLM_GATEWAY_HOST": "b"},
        flags={"gateway.port": 3},
    )
    assert (found.settings.gateway.port, found.sources["gateway.port"]) == (3, "flag")
    assert found.settings.gateway.host == "b"
    assert found.sources["gateway.host"] == "MESHSLM_GATEWAY_HOST"
    assert found.settings.log.level == "debug"
    assert found.sources["log.level"] == "c.toml, line 6"
    assert found.sources["log.format"] == "default"


def test_the_home_folder_is_put_in() -> None:
    file = TomlText("c.toml", "[node]\ndata_dir = '~/mesh'\n")
    found = effective(HERE, file=file, flags={"node.models_dir": "~/models"})
    assert found.settings.node.data_dir == "/home/u/mesh"
    assert found.settings.node.models_dir == "/home/u/models"


@pytest.mark.parametrize(
    ("text", "value"),
    [("", ()), (" ", ()), ("code", ("code",)), ("code, ./my own.toml", ("code", "./my own.toml"))],
)
def test_lists_in_the_environment_are_separated_by_commas(
    text: str, value: tuple[str, ...]
) -> None:
    found = effective(HERE, environment={"MESHSLM_NODE_PROFILES": text})
    assert found.settings.node.profiles == value


@pytest.mark.parametrize(("text", "value"), [("true", True), ("0", False), ("False", False)])
def test_switches_in_the_environment(text: str, value: bool) -> None:
    assert effective(HERE, environment={"MESHSLM_LINK_MDNS": text}).settings.link.mdns is value


@pytest.mark.parametrize(
    ("environment", "error"),
    [
        (
            {"MESHSLM_GATEWAY_PROT": "1"},
            "no setting is called MESHSLM_GATEWAY_PROT; did you mean 'MESHSLM_GATEWAY_PORT'?",
        ),
        (
            {"MESHSLM_GATEWAY_PORT": "x"},
            "MESHSLM_GATEWAY_PORT (gateway.port): expected a whole number; got 'x'",
        ),
        (
            {"MESHSLM_GATEWAY_PORT": "65536"},
            "MESHSLM_GATEWAY_PORT (gateway.port): expected a whole number <= 65535; got '65536'",
        ),
        (
            {"MESHSLM_LINK_LISTEN": "/ip4/1.2.3.4/tcp/1,foo"},
            (
                "MESHSLM_LINK_LISTEN (link.listen)[1]: expected a multiaddress such as "
                "/ip4/192.168.1.7/tcp/7415; got 'foo'"
            ),
        ),
        (
            {"MESHSLM_GATEWAY_ALLOWED_HOSTS": "ok.example,http://x"},
            (
                "MESHSLM_GATEWAY_ALLOWED_HOSTS (gateway.allowed_hosts)[1]: expected a host name "
                "such as chat.example.org, without a port; got 'http://x'"
            ),
        ),
        (
            {"MESHSLM_LINK_MDNS": "perhaps"},
            "MESHSLM_LINK_MDNS (link.mdns): expected true or false; got 'perhaps'",
        ),
        ({"MESHSLM_NODE_NAME": "a\udcffb"}, "MESHSLM_NODE_NAME (node.name): it is not valid UTF-8"),
    ],
)
def test_a_wrong_variable_is_named(environment: dict[str, str], error: str) -> None:
    with pytest.raises(OurFault) as caught:
        effective(HERE, environment=environment)
    assert str(caught.value) == error


def test_other_variables_with_our_prefix_are_left_alone() -> None:
    effective(HERE, environment={"MESHSLM_TEST_MODEL": "x", "MESHSLM_CONFIG": "y"})


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (
            {"log.level": "loud"},
            "flag for log.level: expected one of debug, error, info, warning; got 'loud'",
        ),
        ({"node.profiles": ("a", 3)}, "flag for node.profiles[1]: expected a text; got 3"),
        (
            {"node.mesh": ""},
            "flag for node.mesh: expected 1 to 32 characters, without blanks and '@:/,'; got ''",
        ),
    ],
)
def test_a_wrong_flag_is_named(flags: dict[str, Any], error: str) -> None:
    with pytest.raises(OurFault) as caught:
        effective(HERE, flags=flags)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "[gateway]\n\nprot = 2",
            "c.toml, line 3: [gateway] has no key 'prot'; did you mean 'port'?",
        ),
        ("\n[gatewy]\n", "c.toml, line 2: the file has no key 'gatewy'; did you mean 'gateway'?"),
        ("gateway = 1", "c.toml, line 1: gateway: expected a table; got 1"),
        (
            "[gateway]\nport = -1",
            "c.toml, line 2: gateway.port: expected a whole number >= 0; got -1",
        ),
        (
            "[link]\nlisten = []",
            "c.toml, line 2: link.listen: expected a list of length >= 1; got []",
        ),
        (
            "[node]\nname = 'a b'",
            (
                "c.toml, line 2: node.name: expected at most 32 characters, without blanks and "
                "'@:/,'; got 'a b'"
            ),
        ),
        (
            "[node]\nname = 'a\\n'\n".replace("'", '"'),
            (
                "c.toml, line 2: node.name: expected at most 32 characters, without blanks and "
                "'@:/,'; got 'a\\n'"
            ),
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_line(text: str, error: str) -> None:
    with pytest.raises(OurFault) as caught:
        effective(HERE, file=TomlText("c.toml", text))
    assert str(caught.value) == error


# --- laws ---------------------------------------------------------------------------------------
_names = st.from_regex(r"[^\s\x00-\x1f\x7f@:/,]{1,32}", fullmatch=True)
_addresses = st.lists(
    st.from_regex(r"/ip4/[a-z0-9./]{1,30}", fullmatch=True), min_size=1, max_size=3
)
_paths = st.from_regex(r"/[^\x00,~ ]{1,30}", fullmatch=True)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "node.name": _names,
    "node.mesh": _names,
    "node.data_dir": _paths,
    "node.models_dir": _paths,
    "node.profiles": st.lists(_names, max_size=3),
    "link.listen": _addresses,
    "link.bootstrap": _addresses,
    "link.dht": _addresses,
    "link.mdns": st.booleans(),
    "link.reach": st.booleans(),
    "link.relay": st.sampled_from(["off", "auto", "on"]),
    "link.open": st.booleans(),
    "gateway.host": _names,
    "gateway.port": st.integers(0, 65535),
    "gateway.allowed_hosts": st.lists(
        st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{2,9})?[a-z]", fullmatch=True), max_size=3
    ),
    "gateway.max_body_bytes": st.integers(1024, 2**20),
    "engine.threads": st.integers(0, 64),
    "engine.slots": st.integers(1, 64),
    "engine.context": st.integers(0, 2**20),
    "engine.batch": st.integers(32, 4096),
    "engine.gpu_layers": st.integers(-1, 100),
    "engine.memory_mib": st.integers(0, 100_000),
    "engine.idle_s": st.integers(0, 100_000),
    "engine.states_mib": st.integers(0, 2**24),
    "engine.sandbox": st.sampled_from(["off", "auto", "required"]),
    "log.level": st.sampled_from(["debug", "info", "warning", "error"]),
    "log.format": st.sampled_from(["text", "json"]),
    "limits.deadline_ms": st.integers(1, 600_000),
    "limits.queue": st.integers(0, 1000),
    "limits.drain_s": st.integers(0, 3600),
    "routing.strategy": st.sampled_from(["auto", "cost", "prefix", "local-first"]),
    "link.metered": st.booleans(),
    "upstream.url": st.sampled_from(["", "https://llm.example.org/v1", "http://10.0.0.1:8000/v1"]),
    "upstream.model": st.from_regex(r"[a-z0-9./-]{0,40}", fullmatch=True),
    "upstream.key_file": st.sampled_from(["", "/etc/meshslm/key"]),
    "upstream.key_variable": st.sampled_from(["", "UPSTREAM_KEY"]),
    "upstream.price_per_1k": st.floats(0, 1e6, allow_subnormal=False),
    "upstream.spend_per_day": st.floats(0, 1e9, allow_subnormal=False),
    "upstream.requests_per_minute": st.integers(0, 999_999),
    "upstream.timeout_s": st.floats(0.1, 600),
    "upstream.context": st.integers(0, 2**24),
    "upstream.slots": st.integers(1, 256),
    "routing.hedge": st.floats(0, 1),
    "routing.semantic": st.booleans(),
    "routing.unsure_below": st.floats(0, 1, allow_subnormal=False),
    "routing.edge_below": st.floats(0, 1, allow_subnormal=False),
    "routing.cloud_from": st.floats(0, 1, allow_subnormal=False),
    "consensus.coordinator": st.booleans(),
    "consensus.voters": st.sampled_from([0, 1, 3, 5, 7]),
    "consensus.lease_reads": st.booleans(),
    "record.mib": st.integers(0, 1024),
    "record.texts": st.booleans(),
    "state.enabled": st.booleans(),
    "state.directory": _paths,
    "state.documents": st.lists(_names, max_size=3),
    "state.document_mib": st.integers(1, 64),
    "state.journal_texts": st.booleans(),
}
some_values = st.fixed_dictionaries({}, optional=VALUES)


def test_the_laws_cover_every_setting() -> None:
    assert set(VALUES) == set(KEYS)


def as_file(values: dict[str, Any]) -> TomlText:
    lines = [f"{key} = {toml_value(value)}" for key, value in values.items()]
    return TomlText("c.toml", "\n".join(lines))


def as_environment(values: dict[str, Any]) -> dict[str, str]:
    return {
        variable_of(key): ",".join(value) if isinstance(value, list) else str(value)
        for key, value in values.items()
    }


def value_of(all_settings: Settings, key: str) -> Any:
    section, _, name = key.partition(".")
    value = getattr(getattr(all_settings, section), name)
    return list(value) if isinstance(value, tuple) else value


@given(some_values, some_values, some_values)
def test_each_value_comes_from_the_highest_source_that_has_it(
    file: dict[str, Any], environment: dict[str, Any], flags: dict[str, Any]
) -> None:
    found = effective(
        HERE, file=as_file(file), environment=as_environment(environment), flags=flags
    )
    defaults = effective(HERE).settings
    for key in KEYS:
        if key in flags:
            expected, source = flags[key], "flag"
        elif key in environment:
            expected, source = environment[key], variable_of(key)
        elif key in file:
            expected, source = file[key], f"c.toml, line {list(file).index(key) + 1}"
        else:
            expected, source = value_of(defaults, key), "default"
        assert value_of(found.settings, key) == expected
        assert found.sources[key] == source


@given(some_values)
def test_what_is_printed_reads_back_as_the_same(flags: dict[str, Any]) -> None:
    found = effective(HERE, flags=flags)
    text = render_toml(found.settings, found.sources)
    assert effective(HERE, file=TomlText("c.toml", text)).settings == found.settings
    plain = msgspec.json.decode(msgspec.json.encode(found.settings))
    assert tomllib.loads(render_toml(found.settings)) == plain


# --- the manual ---------------------------------------------------------------------------------
def test_the_manual_lists_every_setting_as_it_is() -> None:
    specification = importlib.util.spec_from_file_location(
        "settings_table", ROOT / "scripts" / "settings_table.py"
    )
    assert specification is not None
    assert specification.loader is not None
    table = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(table)
    text = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert table.replaced(text) == text, "python scripts/settings_table.py --write"
    assert all(variable_of(key) in text for key in KEYS)
