"""Find the text that means the nearest to a question, by vectors.

    MESHSLM_MODEL=minilm python examples/embeddings.py "How do I get my money back?"

Needs a mesh with a node that hosts an embedding model; `meshslm models list` shows what there is.
"""

from __future__ import annotations

import os
import sys

from meshslm.client import DEFAULT_URL, Client

TEXTS = [
    "Refunds are paid within 14 days of your return.",
    "Our shops are open from nine to five.",
    "The battery lasts for about ten hours.",
]


def main() -> None:
    """Rank the texts by their likeness to the question."""
    question = " ".join(sys.argv[1:]) or "How do I get my money back?"
    model = os.environ.get("MESHSLM_MODEL", "auto")
    with Client(os.environ.get("MESHSLM_URL", DEFAULT_URL)) as mesh:
        made = mesh.embed([question, *TEXTS], model=model)
    asked, *others = made.vectors
    # The vectors have length one, so the product is the cosine of their angle.
    likeness = [sum(a * b for a, b in zip(asked, other, strict=True)) for other in others]
    print(f"{len(asked)} numbers each, by {made.node_name} with {made.model}")
    for score, text in sorted(zip(likeness, TEXTS, strict=True), reverse=True):
        print(f"{score:5.2f}  {text}")


if __name__ == "__main__":
    main()
