"""`meshslm ask`, `chat`, `peers` and `status` against a node that says what the test wants."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from meshslm.api.admin import BanInfo, DialInfo, StateInfo
from meshslm.api.openai_responses import CascadeInfo, CascadeStep
from meshslm.cli import answers
from meshslm.errors import FaultCode, RequestFault
from tests.cli.conftest import documented_keys
from tests.cli.stand_in_node import NODE, StandIn, stand_in_node

if TYPE_CHECKING:
    from tests.cli.conftest import Run

ABOUT = (
    "-- node-b answered as writing (smollm2-135m-instruct), after 2 attempts\n"
    "-- why: classified as writing (0.81)\n"
    "-- first token 42 ms, 40.0 tokens/s, 8 tokens\n"
)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with stand_in_node() as told:
        monkeypatch.setenv("MESHSLM_URL", told.url)
        yield told


# --- ask ----------------------------------------------------------------------------------------
def test_the_answer_goes_to_stdout_and_what_is_about_it_to_stderr(run: Run, node: StandIn) -> None:
    shown = run("ask", "Write", "a poem")
    assert shown.code == 0
    assert shown.out == "Snow on the lamp.\n"
    assert shown.err == ABOUT
    assert node.asked == [
        {
            "model": "auto",
            "messages": [{"role": "user", "content": "Write a poem"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_options_reach_the_node(run: Run, node: StandIn) -> None:
    words = ("--max-tokens", "7", "--temperature", "0", "--seed", "5", "--system", "Be brief.")
    assert run("ask", "--model", "domain:writing", *words, "Hi").code == 0
    asked = node.asked[0]
    assert asked["model"] == "domain:writing"
    assert (asked["max_tokens"], asked["temperature"], asked["seed"]) == (7, 0, 5)
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}


def test_how_it_is_routed_reaches_the_node(run: Run, node: StandIn) -> None:
    words = ("--strategy", "least-connections", "--private", "--cascade")
    assert run("ask", *words, "Hi").code == 0
    routing = {"strategy": "least-connections", "private": True, "cascade": True}
    assert node.asked[0]["routing"] == routing
    assert run("ask", "--strategy", "fastest", "Hi").code == 2


@pytest.mark.parametrize("no_stream", [(), ("--no-stream",)])
def test_steps_and_moves_are_told(run: Run, node: StandIn, no_stream: tuple[str, ...]) -> None:
    small = CascadeStep(
        profile="small", model="m1", confidence=0.31, why_not="unsure, below 0.50", tokens=9
    )
    steps = [small, CascadeStep(profile="large\x1b[31m", model="m2")]
    cascade = CascadeInfo(steps=steps, escalations=1, saved_tokens=0)
    node.route = structs.replace(node.route, cascade=cascade, continued="text")
    shown = run("ask", *no_stream, "Hi")
    assert "-- steps: small 0.31 sure (unsure, below 0.50), then large" in shown.err
    assert "\x1b[31m" not in shown.err
    assert "-- went on there when its node went, in its own words" in shown.err


def test_what_steps_saved_is_told(run: Run, node: StandIn) -> None:
    step = CascadeStep(profile="small", model="m1", confidence=0.9, tokens=20)
    cascade = CascadeInfo(steps=[step], escalations=0, saved_tokens=20)
    node.route = structs.replace(node.route, cascade=cascade)
    assert "-- steps: small 0.90 sure; 20 tokens saved" in run("ask", "Hi").err
    assert run("ask", "--json", "Hi").json["cascade"]["saved_tokens"] == 20


def test_without_streaming(run: Run, node: StandIn) -> None:
    shown = run("ask", "--no-stream", "Hi")
    assert shown.out == "Snow on the lamp.\n"
    assert shown.err == ABOUT
    assert "stream" not in node.asked[0]


def test_json(run: Run, node: StandIn) -> None:
    shown = run("ask", "--json", "Hi")
    assert shown.err == ""
    assert set(shown.json) == documented_keys("ask")
    assert shown.json == {
        "text": "Snow on the lamp.",
        "finish_reason": "stop",
        "reasoning": "",
        "tool_calls": [],
        "memory": [],
        "continued": "",
        "cascade": None,
        "model": "smollm2-135m-instruct",
        "node": NODE,
        "node_name": "node-b",
        "profile": "writing",
        "route": "classified as writing (0.81)",
        "attempts": 2,
        "ttft_ms": 42.5,
        "queue_ms": 1.0,
        "prefill_ms": 30.0,
        "decode_ms": 200.0,
        "tokens_per_s": 40.0,
        "usage": {
            "prompt_tokens": 12,
            "completion_tokens": 8,
            "total_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
    }


def test_the_question_from_stdin(run: Run, node: StandIn) -> None:
    assert run("ask", "-", stdin="Grüße\nund mehr").code == 0
    assert node.asked[0]["messages"][0]["content"] == "Grüße\nund mehr"


@pytest.mark.parametrize(
    ("words", "stdin"), [(("ask", " "), None), (("ask", "-"), ""), (("ask",), None)]
)
def test_an_empty_question(
    run: Run, node: StandIn, words: tuple[str, ...], stdin: str | None
) -> None:
    assert run(*words, stdin=stdin).code == 2
    assert node.asked == []


def test_a_question_that_is_no_text(
    run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    shown = run("ask", "-")
    assert shown.code == 1
    assert "UTF-8" in shown.err


@pytest.mark.parametrize("words", [(), ("--no-stream",), ("--json",)])
def test_a_refusal_is_told_in_the_nodes_words(
    run: Run, node: StandIn, words: tuple[str, ...]
) -> None:
    node.pieces = []
    node.fault = RequestFault(FaultCode.UNKNOWN_MODEL, "nobody hosts x; there are auto and writing")
    shown = run("ask", "--model", "x", *words, "Hi")
    assert shown.code == 1
    assert shown.out == ""
    assert shown.err == "meshslm: error: nobody hosts x; there are auto and writing\n"


def test_a_fault_in_the_middle_of_an_answer(run: Run, node: StandIn) -> None:
    node.fault = RequestFault(FaultCode.PEER_LOST, "node-b is gone")
    shown = run("ask", "Hi")
    assert shown.code == 1
    assert shown.out == "Snow on the lamp."
    assert shown.err == "meshslm: error: node-b is gone\n"


def test_an_answer_that_breaks_off(run: Run, node: StandIn) -> None:
    node.breaks_off = True
    shown = run("ask", "Hi")
    assert shown.code == 1
    assert "broke off" in shown.err


def test_a_terminal_is_safe_from_control_characters(
    node: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "\x1b]0;owned\x07 \x9b31m line\n\tend\r"
    answers.write_text(hostile)
    assert capsys.readouterr().out == hostile
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    answers.write_text(hostile)
    assert capsys.readouterr().out == "]0;owned 31m line\n\tend"


# --- reaching a node ----------------------------------------------------------------------------
@pytest.mark.parametrize("words", [("ask", "Hi"), ("peers",), ("status",), ("chat",)])
def test_no_node_there(run: Run, words: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
    shown = run(words[0], "--url", url, *words[1:])
    assert shown.code == 1
    assert url in shown.err
    assert "meshslm up" in shown.err
    assert "hint: --url" in shown.err


def test_something_else_is_there(run: Run, node: StandIn) -> None:
    shown = run("peers", "--url", f"{node.url}/elsewhere")
    assert shown.code == 1
    assert "meshslm" in shown.err


@pytest.mark.parametrize("url", ["127.0.0.1:7416", "ftp://x", "http://"])
def test_a_bad_address_is_wrong_usage(run: Run, url: str) -> None:
    assert run("peers", "--url", url).code == 2


def test_the_address_of_the_api_will_do(run: Run, node: StandIn) -> None:
    assert run("status", "--url", f"{node.url}/v1/").code == 0


def test_settings_tell_where_the_node_is(
    run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESHSLM_URL")
    monkeypatch.setenv("MESHSLM_GATEWAY_HOST", "0.0.0.0")
    monkeypatch.setenv("MESHSLM_GATEWAY_PORT", node.url.rpartition(":")[2])
    assert run("status").code == 0


# --- peers and status ---------------------------------------------------------------------------
def test_peers(run: Run, node: StandIn) -> None:
    shown = run("peers")
    assert shown.code == 0
    head, first, second = shown.out.splitlines()
    assert head.split()[:3] == ["name", "state", "node"]
    assert first.split()[:2] == ["node-a", "self"]
    assert "writing (writing, poetry)" in second
    assert "1 of 8" in second
    assert "310 ms ago" in second
    assert "88" in second


def test_peers_as_json(run: Run, node: StandIn) -> None:
    first, second = run("peers", "--json").json
    assert first["state"] == "self"
    assert second["specialists"][0]["profile"] == "writing"
    assert second["loads"][0]["decode_tps"] == 88.4
    assert set(first) == documented_keys("peers")


def test_peers_that_are_away(run: Run, node: StandIn) -> None:
    *_, there, away = run("peers", "--all").out.splitlines()
    assert "node-b" in there
    assert away.split()[:2] == ["node-c", "away"]
    assert "law (law)" in away
    assert "2 h 00 min ago" in away
    assert "node-c" not in run("peers").out
    first, second = run("peers", "--all", "--json").json
    assert set(first) == documented_keys("peers --all")
    assert (second["name"], second["there"]) == ("node-c", False)


def test_status(run: Run, node: StandIn) -> None:
    shown = run("status").out
    for part in (NODE, "2 min 05 s, boot 3", "1 active; 9 arrived", "4 served", "88", "demo"):
        assert part in shown


def test_status_tells_of_shared_documents(run: Run, node: StandIn) -> None:
    assert "documents" not in run("status").out
    well = StateInfo(ready=True, count=3, live_bytes=2048, full_bytes=4096)
    node.status = structs.replace(node.status, state=well)
    assert "3 shared, 2.0 KiB live, 4.0 KiB stored\n" in run("status").out
    ill = structs.replace(well, quarantined=1, trouble="the disk is full")
    node.status = structs.replace(node.status, state=ill)
    shown = run("status").out
    assert "1 IN QUARANTINE" in shown
    assert "NOTHING CAN BE STORED: the disk is full" in shown


def test_status_as_json(run: Run, node: StandIn) -> None:
    told = run("status", "--json").json
    assert set(told) == documented_keys("status")
    assert told["node"] == NODE
    assert told["tasks"]["retried"] == 2


# --- who is missing, and who is kept away -------------------------------------------------------
MISSING = DialInfo(
    address="/ip4/192.0.2.7/tcp/7415",
    state="waiting",
    attempts=5,
    last_ms=3_000.0,
    reason="connection refused",
    next_ms=12_000.0,
)
THERE = DialInfo(address="/ip4/192.0.2.8/tcp/7415", state="linked", peer=NODE, last_ms=90_000.0)
BAN = BanInfo(node=NODE[::-1], reason="garbage", strikes=3, left_ms=16_000.0)


@pytest.fixture
def lonely(node: StandIn) -> StandIn:
    """A node with a bootstrap address where nobody answers, and one that it has banned."""
    node.status = structs.replace(node.status, bootstrap=[MISSING, THERE], banned=[BAN])
    return node


def test_a_bootstrap_address_that_never_answers_is_seen_everywhere(
    run: Run, lonely: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "tried 3.0 s ago, connection refused, 5 rounds in vain, next try in 12.0 s"
    status, peers = run("status").out, run("peers").out
    for shown in (status, peers):
        assert MISSING.address in shown
        assert words in shown
    assert THERE.address in status
    assert THERE.address not in peers
    monkeypatch.setattr("meshslm.cli.doctor_llama.check_llama", lambda *_: [])
    told = run("doctor", "--json", "--gateway-port", lonely.url.rpartition(":")[2]).json
    found = {c["detail"]: c for c in told["checks"] if c["check"] == "bootstrap"}
    assert found[f"{MISSING.address}: {words}"]["verdict"] == "warn"
    assert found[f"{MISSING.address}: {words}"]["advice"]
    assert found[f"{THERE.address} is linked"]["verdict"] == "ok"


def test_one_that_is_being_dialled_for_the_first_time(run: Run, node: StandIn) -> None:
    first = DialInfo(address=MISSING.address, state="dialling")
    node.status = structs.replace(node.status, bootstrap=[first])
    assert "not tried, trying now" in run("peers").out


def test_who_is_banned_is_shown_with_the_reason(run: Run, lonely: StandIn) -> None:
    shown = run("peers", "--banned").out
    assert BAN.node in shown
    assert "16.0 s" in shown
    assert "garbage" in shown
    assert "1 banned" in run("status").out
    (ban,) = run("peers", "--banned", "--json").json
    assert set(ban) == documented_keys("peers --banned")


def test_nobody_is_banned(run: Run, node: StandIn) -> None:
    assert run("peers", "--banned").out == "nobody is banned\n"
    assert run("peers", "--banned", "--json").json == []


# --- chat ---------------------------------------------------------------------------------------
def test_a_conversation_keeps_its_turns(run: Run, node: StandIn) -> None:
    shown = run("chat", "--system", "Be brief.", stdin="Hi\n\nAnd then?\n")
    assert shown.code == 0
    assert shown.out == "Snow on the lamp.\n" * 2
    assert shown.err == ABOUT * 2
    assert node.asked[1]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Snow on the lamp."},
        {"role": "user", "content": "And then?"},
    ]


def test_commands_of_a_conversation(run: Run, node: StandIn) -> None:
    typed = "Hi\n/model writing\n/model\n/reset\nAgain\n/help\n/what\n/quit\nno\n"
    shown = run("chat", stdin=typed)
    assert shown.code == 0
    assert [asked["model"] for asked in node.asked] == ["auto", "writing"]
    assert len(node.asked[1]["messages"]) == 1
    assert "asking writing from now on" in shown.err
    assert "there is no command /what" in shown.err
    assert shown.err.count("/reset        forget") == 2


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nope", "nobody answers for 'nope'; there are: auto, domain:writing, writing\n"),
        ("writing@node-x", "'node-x' does not answer for 'writing'; who does: node-b\n"),
        ("auto@node-x", "'node-x' does not answer for 'auto'; who does: node-b\n"),
    ],
)
def test_a_model_that_nobody_answers_for_is_not_taken(
    run: Run, node: StandIn, name: str, told: str
) -> None:
    shown = run("chat", stdin=f"/model {name}\nHi\n")
    assert shown.err == f"meshslm: error: {told}still asking auto\n{ABOUT}"
    assert [asked["model"] for asked in node.asked] == ["auto"]


@pytest.mark.parametrize("name", ["auto", "domain:writing", "writing@node-b", f"writing@{NODE}"])
def test_a_model_that_somebody_answers_for_is_taken(run: Run, node: StandIn, name: str) -> None:
    run("chat", stdin=f"/model {name}\nHi\n")
    assert [asked["model"] for asked in node.asked] == [name]


def test_a_node_that_does_not_tell_its_models_leaves_the_old_one(run: Run, node: StandIn) -> None:
    node.models = None
    shown = run("chat", stdin="/model writing\nHi\n")
    assert "still asking auto" in shown.err
    assert [asked["model"] for asked in node.asked] == ["auto"]


def test_a_conversation_survives_a_refusal(run: Run, node: StandIn) -> None:
    node.pieces = []
    node.fault = RequestFault(FaultCode.OVERLOADED, "queues are full")
    shown = run("chat", stdin="Hi\nHi again\n")
    assert shown.code == 0
    assert shown.err == "meshslm: error: queues are full\n" * 2
    assert [len(asked["messages"]) for asked in node.asked] == [1, 1]


def test_a_broken_answer_stays_in_the_conversation(run: Run, node: StandIn) -> None:
    node.fault = RequestFault(FaultCode.PEER_LOST, "node-b is gone")
    shown = run("chat", stdin="Hi\nGo on\n")
    assert shown.out == "Snow on the lamp.\n" * 2
    assert node.asked[1]["messages"][1]["content"] == "Snow on the lamp."


# --- doctor -------------------------------------------------------------------------------------
def test_the_doctor_sees_a_node(run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    from meshslm.cli import doctor_llama

    monkeypatch.setattr(doctor_llama, "check_llama", lambda *_: [])
    port = node.url.rpartition(":")[2]
    told = run("doctor", "--json", "--gateway-port", port).json
    checks = {check["check"]: check for check in told["checks"]}
    assert checks["node"]["verdict"] == "ok"
    assert "API port" not in checks
    node.ready = False
    again = run("doctor", "--json", "--gateway-port", port)
    checks = {check["check"]: check for check in again.json["checks"]}
    assert checks["node"]["verdict"] == "warn"
    assert checks["API port"]["verdict"] == "fail"
    assert again.json["verdict"] == "fail"
    assert again.code == 1


def test_the_doctor_tells_people_what_to_do(
    run: Run, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    from meshslm.cli import doctor_llama

    monkeypatch.setattr(doctor_llama, "check_llama", lambda *_: [])
    words = ("--gateway-port", str(free_port), "--listen", "/ip4/127.0.0.1/tcp/0")
    shown = run("doctor", *words)
    assert shown.code == 0
    assert "ok    python" in shown.out
    assert "-> meshslm models pull smollm2-135m-instruct" in shown.out
    assert "-> start one with 'meshslm up', or wait" in shown.out
    told = run("doctor", "--json", *words, "--profile", "cde").json
    assert set(told) == documented_keys("doctor")
    assert told["verdict"] == "fail"
    assert {check["check"] for check in told["checks"]} == {
        "python",
        "memory",
        "sandbox",
        "data folder",
        "models folder",
        "disk",
        "identity",
        "profile",
        "model",
        "node",
        "API port",
        "peer port",
    }
