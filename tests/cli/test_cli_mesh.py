"""`meshslm mesh` offline: making a mesh, tokens, revocations, and what bad input is told."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.tokens import from_text
from tests.cli.conftest import Run, documented_keys

NODE = NodeKey.generate().node_id


@pytest.fixture
def home(run: Run) -> Run:
    assert run("mesh", "create", "home").code == 0
    return run


def secret(run: Run, *words: str) -> str:
    outcome = run("mesh", "invite", *words)
    assert outcome.code == 0, outcome.err
    return outcome.out.strip()


def test_a_mesh_is_made_once_and_shown(run: Run) -> None:
    assert run("mesh", "status").code == 1
    made = run("mesh", "create", "home", "--json")
    assert made.code == 0
    assert made.json["rights"] == ["submit", "serve", "coordinate", "write", "rollout", "admit"]
    assert made.json["has_key"] is True
    assert set(made.json) == documented_keys("mesh create")
    shown = run("mesh", "status", "--json")
    assert shown.code == 0
    assert shown.json == made.json
    again = run("mesh", "create", "other")
    assert again.code == 1
    assert "in a mesh already" in again.err
    assert "hint: " in again.err


def test_the_key_is_the_owners_alone(home: Run, tmp_path: Path) -> None:
    (key,) = tmp_path.rglob("root.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_without_a_mesh_nobody_is_invited(run: Run) -> None:
    outcome = run("mesh", "invite")
    assert outcome.code == 1
    assert "cannot invite" in outcome.err


def test_an_invitation_goes_to_a_file_of_its_owner(home: Run, tmp_path: Path) -> None:
    path = tmp_path / "code.token"
    outcome = home("mesh", "invite", "--role", "specialist", "--output", str(path), "--json")
    assert outcome.code == 0
    assert outcome.json["rights"] == ["serve"]
    assert "token" not in outcome.json
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("meshslm-token-1.")
    assert home("mesh", "invite", "--output", str(path)).code == 1, "nothing is overwritten"


@pytest.mark.parametrize(
    "words",
    [
        ("--expires", "tomorrow"),
        ("--expires", "0s"),
        ("--expires", "9999w"),
        ("--life", "59s"),
        ("--uses", "-1"),
        ("--role", "king"),
        ("--domains", ","),
        ("--domains", "x" * 129),
        ("--domains", ",".join(f"d{n}" for n in range(33))),
        ("--address", "example.org:7415"),
        ("--address", "/ip4/127.0.0.1/tcp/0"),
    ],
)
def test_bad_words_are_usage_errors(home: Run, words: tuple[str, str]) -> None:
    outcome = home("mesh", "invite", *words)
    assert outcome.code == 2
    assert "bug" not in outcome.err


def test_a_token_is_narrowed_from_a_file_stdin_or_the_environment(
    home: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = secret(home)
    path = tmp_path / "t"
    path.write_text(token + "\n")
    by_file = home("mesh", "narrow", "--token-file", str(path), "--expires", "1h", "--node", NODE)
    by_stdin = home("mesh", "narrow", "--token-file", "-", "--domains", "code", stdin=token)
    monkeypatch.setenv("MESHSLM_JOIN_TOKEN", token)
    by_environment = home("mesh", "narrow", "--rights", "submit")
    spaces = home("mesh", "narrow", "--namespaces", "notes, plans")
    assert from_text(spaces.out.strip()).namespaces == ("notes", "plans")
    for outcome in (by_file, by_stdin, by_environment, spaces):
        assert outcome.code == 0, outcome.err
        assert outcome.out.startswith("meshslm-token-1.")
        assert len(outcome.out) > len(token)


@pytest.mark.parametrize("option", ["--namespaces", "--domains", "--rights"])
@pytest.mark.parametrize("names", ["", " , ", "x" * 129, ",".join(f"d{n}" for n in range(33))])
def test_a_token_is_not_narrowed_to_nothing_by_mistake(home: Run, option: str, names: str) -> None:
    outcome = home("mesh", "narrow", "--token-file", "-", option, names, stdin=secret(home))
    assert outcome.code == 2
    assert option in outcome.err


def test_a_systemd_credential_is_taken(
    home: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meshslm.token").write_text(secret(home))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert home("mesh", "narrow", "--rights", "submit").code == 0


@pytest.mark.parametrize("text", ["", "token", "meshslm-token-1.", "meshslm-token-1.kjI", "\0" * 9])
def test_what_is_no_token_is_told_without_repeating_it(run: Run, text: str, tmp_path: Path) -> None:
    for command in ("join", "narrow"):
        outcome = run("mesh", command, "--token-file", "-", stdin=text)
        assert outcome.code == 1
        assert "token" in outcome.err
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe")
    assert run("mesh", "join", "--token-file", str(path)).code == 1
    assert run("mesh", "join", "--token-file", str(tmp_path / "none")).code == 1
    assert run("mesh", "join").code == 2


def test_a_member_does_not_join_again(home: Run) -> None:
    outcome = home("mesh", "join", "--token-file", "-", stdin=secret(home))
    assert outcome.code == 1
    assert "in a private mesh already" in outcome.err


def test_revoking(home: Run) -> None:
    assert home("mesh", "revoke", NODE, "--json").json == {"revoked": NODE, "about": "node"}
    (own,) = home("mesh", "members", "--json").json
    assert set(own) == documented_keys("mesh members")
    assert own["state"] == "valid"
    serial = home("mesh", "invite", "--json").json["token_serial"]
    assert home("mesh", "revoke", serial, "--json").json["about"] == "token"
    assert home("mesh", "revoke", own["serial"], "--json").json["about"] == "certificate"
    assert home("mesh", "members", "--json").json[0]["state"] == "revoked"


@pytest.mark.parametrize("what", ["", "nobody", NODE[:-1], "0" * 31, "0" * 33])
def test_only_nodes_and_serials_are_revoked(home: Run, what: str) -> None:
    assert home("mesh", "revoke", what).code == 2


def test_who_has_not_the_key_revokes_nobody(run: Run, tmp_path: Path) -> None:
    for words in (("revoke", NODE), ("rotate",), ("members",), ("status",)):
        assert run("mesh", *words).code == 1
    assert not list(tmp_path.rglob("node.key")), "a look makes no identity where there is none"


def test_a_node_does_not_put_itself_out(home: Run) -> None:
    own = home("mesh", "status", "--json").json
    outcome = home("mesh", "revoke", own["node"])
    assert outcome.code == 2
    assert "this node itself" in outcome.err
    assert home("mesh", "members", "--json").json[0]["state"] == "valid"


def test_the_key_is_changed_and_the_mesh_stays_the_same(home: Run) -> None:
    before = home("mesh", "status", "--json").json
    rotated = home("mesh", "rotate", "--grace", "1h", "--json")
    assert rotated.code == 0
    assert set(rotated.json) == documented_keys("mesh rotate")
    assert rotated.json["key"] != before["mesh"]
    assert home("mesh", "status", "--json").json == before
    assert secret(home)
    assert home("mesh", "rotate").code == 0


def test_leaving_asks_for_the_keys_sake(home: Run) -> None:
    assert home("mesh", "leave").code == 1
    assert home("mesh", "leave", "--yes").code == 0
    assert home("mesh", "status").code == 1


def test_an_open_mesh_beyond_loopback_is_refused(run: Run) -> None:
    outcome = run("up", "--no-profiles", "--listen", "/ip4/0.0.0.0/tcp/0", "--gateway-port", "0")
    assert outcome.code == 1
    assert "in no private mesh" in outcome.err
    assert "--open" in outcome.err
