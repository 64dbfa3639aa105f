"""Ask the mesh one question, and see who answered.

    python examples/ask.py "Why is the sky blue?"

Needs a running node (`meshslm up`, or `make run`); MESHSLM_URL says where, if not on this machine.
"""

from __future__ import annotations

import os
import sys

from meshslm.client import DEFAULT_URL, Client


def main() -> None:
    """Ask what the command line says."""
    prompt = " ".join(sys.argv[1:]) or "Why is the sky blue? One sentence."
    with Client(os.environ.get("MESHSLM_URL", DEFAULT_URL)) as mesh:
        answer = mesh.ask(prompt, max_tokens=120)
    print(answer.text)
    print(f"\nanswered by {answer.node_name} with {answer.profile}, because: {answer.route}")


if __name__ == "__main__":
    main()
