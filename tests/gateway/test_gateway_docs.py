"""docs/api.md tells of every route, header and error code, and of none that is not there."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from starlette.routing import Route

from meshslm.api.faults import HTTP_FAULTS
from meshslm.api.openai_responses import CascadeInfo, RouteInfo
from meshslm.gateway import create_app
from meshslm.gateway.replies import REFUSALS
from meshslm.gateway.told import Told
from tests.gateway.scripted_service import ScriptedService, route

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def test_routes() -> None:
    told = set(
        re.findall(r"^\| (GET|POST|PUT|DELETE) \| `([^`]+)` \|", section("Routes"), re.MULTILINE)
    )
    app = create_app(ScriptedService(), version="0")
    served = {
        (method, item.path.replace(":path", ""))
        for item in app.routes
        if isinstance(item, Route)
        for method in item.methods or ()
        if method != "HEAD"
    }
    assert told == served


def test_headers_and_fields() -> None:
    text = section("What comes back")
    told = Told(0.0)
    told.chosen(replace(route(), continued="tokens"))
    told.first_token(0.5, 4.0)
    told.cascade = CascadeInfo(steps=[], escalations=0, saved_tokens=0)
    headers = {*told.headers(), "x-request-id"}
    assert set(re.findall(r"^\| `(x-[a-z-]+)`", text, re.MULTILINE)) == headers
    assert all(f"`{name}`" in text for name in RouteInfo.__struct_fields__)


def test_error_codes() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \| (`.*?`) \|", section("Errors"), re.MULTILINE)
    told = {
        (int(status), code)
        for statuses, codes in rows
        for status, code in _paired(statuses.split(", "), re.findall(r"`([^`]+)`", codes))
    }
    ours = {(fault.status, fault.code) for fault in HTTP_FAULTS.values()}
    assert told == ours | set(REFUSALS.items())


def _paired(statuses: list[str], codes: list[str]) -> list[tuple[str, str]]:
    """One status for all codes, or one each."""
    if len(statuses) == 1:
        return [(statuses[0], code) for code in codes]
    return list(zip(statuses, codes, strict=True))
