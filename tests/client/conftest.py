"""A node for the clients of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.gateway.scripted_service import ScriptedService
from tests.gateway.served import Served, gateway


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with gateway(ScriptedService()) as running:
        yield running
