"""A test mesh for every test of the core."""

from __future__ import annotations

import pytest

from tests.core.mesh import Mesh, specialist


@pytest.fixture
def mesh() -> Mesh:
    """An empty test mesh."""
    return Mesh()


@pytest.fixture
def pair(mesh: Mesh) -> Mesh:
    """A asks; B hosts code."""
    mesh.add("b", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b",))
    mesh.pass_time(1500)
    return mesh


@pytest.fixture
def twins(mesh: Mesh) -> Mesh:
    """A asks; B and C both host code."""
    mesh.add("b", specialist("coder", "code"))
    mesh.add("c", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b", "c"))
    mesh.pass_time(1500)
    return mesh
