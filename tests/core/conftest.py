"""A test mesh for every test of the core."""

from __future__ import annotations

import pytest

from tests.core.mesh import Mesh


@pytest.fixture
def mesh() -> Mesh:
    """An empty test mesh."""
    return Mesh()
