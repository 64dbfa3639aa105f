"""The shapes of the API follow the core's views, field by field."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

from meshslm.api import admin
from meshslm.core import views
from meshslm.gateway.views import model_list, peers_reply, status_reply
from meshslm.wire import messages
from tests.gateway.scripted_service import GONE, OTHER, SELF, ScriptedService

PAIRS: list[tuple[Any, Any]] = [
    (views.PeerView, admin.PeerInfo),
    (views.StatusView, admin.StatusReply),
    (views.TaskCounts, admin.TaskCountsInfo),
    (views.DialView, admin.DialInfo),
    (views.BanView, admin.BanInfo),
    (messages.Specialist, admin.SpecialistInfo),
    (messages.DomainCard, admin.Card),
    (messages.Hardware, admin.HardwareInfo),
    (messages.EngineLoad, admin.LoadInfo),
]


FOR_NODES = {"prefixes"}
"""Fields that mean nothing to a person: digests by which nodes route."""


@pytest.mark.parametrize(("view", "shape"), PAIRS)
def test_shapes_have_the_fields_of_their_views(view: Any, shape: Any) -> None:
    shown = [field.name for field in dataclasses.fields(view) if field.name not in FOR_NODES]
    assert list(shape.__struct_fields__) == shown


def test_views_are_copied_whole() -> None:
    reply = peers_reply([SELF, OTHER])
    assert reply.peers[1].specialists[0].domains[0].examples == ["an example"]
    assert reply.peers[1].hardware.features == ["avx2"]
    assert reply.peers[0].rtt_ms is None
    assert status_reply(ScriptedService().status()).loads[0].decode_tps == 40.0


def test_only_nodes_that_are_there_are_listed() -> None:
    assert "doctor" not in [model.id for model in model_list([SELF, OTHER, GONE], 0).data]
    back = replace(GONE, state="alive")
    assert "doctor" in [model.id for model in model_list([SELF, back], 0).data]


def test_a_profile_named_like_its_model_is_listed_once() -> None:
    twin = replace(SELF, specialists=(replace(SELF.specialists[0], profile="smollm2"),))
    listed = model_list([twin], 0).data
    assert [model.id for model in listed] == ["auto", "domain:writing", "smollm2"]
    assert listed[-1].meshslm is not None
    assert listed[-1].meshslm.kind == "profile"


def test_an_empty_mesh_still_has_auto() -> None:
    assert [model.id for model in model_list([], 5).data] == ["auto"]
