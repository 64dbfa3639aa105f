"""docs/protocol.md lists the messages and the fault codes as they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from meshslm import limits, mesh_limits
from meshslm.core.watch import QUIET_PRESENCES
from meshslm.errors import RETRYABLE, FaultCode
from meshslm.wire import framing
from meshslm.wire.codec import MOST_CONTAINERS, message_classes
from meshslm.wire.schema import HIGHEST_NUMBER, MOST_ITEMS
from meshslm.wire.versions import PROTOCOL_ID

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text("utf-8")


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_message_table_is_what_the_schema_says() -> None:
    table = load_script("protocol_table")
    assert table.replaced(DOCUMENT) == DOCUMENT, "python scripts/protocol_table.py --write"
    for cls in message_classes():
        assert f"#### {cls.KIND}: {cls.__name__}\n" in DOCUMENT


def test_every_fault_code_is_listed_with_whether_to_retry() -> None:
    rows = [line.split(" | ") for line in DOCUMENT.splitlines() if line.startswith("| `")]
    listed = {
        row[0].strip("|` "): row[2].rstrip(" |") for row in rows if row[2][:2] in {"ye", "no"}
    }
    assert listed == {code: "yes" if code in RETRYABLE else "no" for code in FaultCode}


def test_the_numbers_in_the_text_are_those_of_the_code() -> None:
    for said, number in [
        ("A frame takes at most 64 KiB", limits.FRAME_BYTES == 64 * limits.KIB),
        ("A message takes at most 2 MiB", limits.MESSAGE_BYTES == 2 * limits.MIB),
        ("carries at least 1 KiB", framing.FRAGMENT_LEAST == limits.KIB),
        ("one byte in sixteen", framing.BACKGROUND_SHARE == 16),
        ("more than 4 MiB waiting in one lane", limits.LANE_QUEUE_BYTES == 4 * limits.MIB),
        ("may be nested 8 deep", limits.MESSAGE_DEPTH == 8),
        (f"a list of more than {MOST_ITEMS} items", True),
        (f"a map of more than {HIGHEST_NUMBER} fields", True),
        (f"more than {MOST_CONTAINERS} lists and maps", True),
        ("within 5 seconds is dropped", limits.HELLO_MS == 5000),
        (
            "Once a second, or four times while",
            mesh_limits.PROBE_MS * mesh_limits.PROBES_SPARED == 1000,
        ),
        ("by more than 15 % of its interval", QUIET_PRESENCES == 1.15),
        ("not heard for 300 ms after a ping", mesh_limits.PROBE_WAIT_MS == 300),
        ("pinged on, ten times a second", mesh_limits.PROBE_AGAIN_MS == 100),
        ("and three other members are asked", mesh_limits.HELPERS == 3),
        ("after 2.5 seconds of silence where three", mesh_limits.SUSPICION_MS == 2500),
        ("after 4 seconds where nobody has", mesh_limits.SUSPICION_MOST_MS == 4000),
        ("only its link, after 6 seconds", mesh_limits.LINK_SILENCE_MS == 6000),
        ("three, and one more for each doubling", mesh_limits.NEWS_REPEATS == 3),
        ("stopped for a third of a second", round(limits.STREAM_PROBE_MS / 1000, 1) == 0.3),
        ("did not begin within two seconds, is probed", limits.STALL_PROBE_MS == 2000),
        ("the next 64 from that item on", limits.RESEND_ITEMS == 64),
        ("freed after 30 seconds", limits.LINGER_MS == 30_000),
        (f"the protocol id `{PROTOCOL_ID}`", True),
    ]:
        assert said in DOCUMENT
        assert number, said
