"""A real model that makes vectors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import sys
from pathlib import Path
from meshslm.engine.kinds import Pooling
from meshslm.engine.llama_encoder import Encoder
texts = int(sys.argv[2])
encoder = Encoder(
    Path(sys.argv[1]), rows=128, texts=texts, pooling=Pooling.MEAN, threads=1,
    on_progress=lambda _: None,
)
for length in (4, 30, 128 // texts):
    assert encoder.encode([[1] * length] * min(texts, 128 // length)).any()
"""


@pytest.mark.parametrize("texts", [3, 5])
def test_rows_need_not_be_a_multiple_of_the_texts(embedding_path: Path, texts: int) -> None:
    """llama.cpp ends a process that gets this wrong, so it is a process of its own."""
    subprocess.run([sys.executable, "-c", READ, str(embedding_path), str(texts)], check=True)
