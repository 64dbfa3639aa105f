"""Print an answer while it is made, then what it took.

    python examples/stream.py

Needs a running node (`meshslm up`, or `make run`); MESHSLM_URL says where, if not on this machine.
"""

from __future__ import annotations

import os

from meshslm.client import DEFAULT_URL, Client, RequestFault


def main() -> None:
    """Ask for a poem."""
    with Client(os.environ.get("MESHSLM_URL", DEFAULT_URL)) as mesh:
        try:
            with mesh.stream("Write a short poem about rivers.", max_tokens=150) as pieces:
                for piece in pieces:
                    print(piece, end="", flush=True)
        except RequestFault as fault:
            raise SystemExit(f"the mesh says no ({fault.code}): {fault}") from None
    answer = pieces.answer
    print(f"\n\n{answer.node_name}: first token after {answer.ttft_ms:.0f} ms", end="")
    print(f", {answer.tokens_per_s:.0f} tokens/s" if answer.tokens_per_s else "")


if __name__ == "__main__":
    main()
