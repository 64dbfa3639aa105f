"""The official `openai` package, unchanged: only the base URL is ours.

    pip install openai
    python examples/openai_client.py

Needs a running node (`meshslm up`, or `make run`).
"""

from __future__ import annotations

import os

from openai import OpenAI

from meshslm.client import DEFAULT_URL


def main() -> None:
    """List the models, then stream an answer of one that the mesh chooses."""
    url = os.environ.get("MESHSLM_URL", DEFAULT_URL)
    with OpenAI(base_url=f"{url}/v1", api_key="not needed") as client:
        print("models:", ", ".join(model.id for model in client.models.list()))
        stream = client.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": "Why is the sky blue? One sentence."}],
            max_completion_tokens=100,
            stream=True,
        )
        for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
