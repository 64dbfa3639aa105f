"""What all tests have in common: how hypothesis searches.

Rules:
- In CI the search is the same in every run, so that a red build is red again.
- No deadlines: on a busy machine a slow example says nothing about the code.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("local", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The default model's file, prepared, as an engine loads it; for tests marked `model`.

    It comes from the program's own store, so a machine fetches it once. MESHSLM_TEST_CACHE names
    another store, MESHSLM_TEST_MODEL a file.
    """
    given = os.environ.get("MESHSLM_TEST_MODEL")
    return Path(given) if given else stored_model("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def embedding_path() -> Path:
    """The catalogue's embedding model, prepared; for tests marked `model`."""
    return stored_model("all-minilm-l6-v2")


def stored_model(name: str) -> Path:
    """A model of the catalogue in the store that tests use, fetched if it is not there."""
    from meshslm.models.model_library import ModelLibrary
    from meshslm.settings import default_directories

    store = os.environ.get("MESHSLM_TEST_CACHE") or str(
        default_directories(os.environ, Path.home()).models
    )
    return ModelLibrary(Path(store), environment=os.environ).ensure(name, lambda _: None).path
