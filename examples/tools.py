"""Let the model ask for calls of your functions, and answer with their results.

    python examples/tools.py "What is 1234 times 5678?"

Needs a running node (`meshslm up`, or `make run`); MESHSLM_URL says where, if not on this machine.
"""

from __future__ import annotations

import os
import sys

from meshslm.client import DEFAULT_URL, Client, Message, tool

MULTIPLY = tool(
    "multiply",
    "The product of two whole numbers.",
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
)


def main() -> None:
    """Ask, call what is asked for, and ask again with the results."""
    prompt = " ".join(sys.argv[1:]) or "What is 1234 times 5678?"
    turns: list[Message] = [{"role": "user", "content": prompt}]
    with Client(os.environ.get("MESHSLM_URL", DEFAULT_URL)) as mesh:
        answer = mesh.ask(turns, tools=[MULTIPLY], tool_choice="required", max_tokens=200)
        turns.append(answer.message)
        for call in answer.tool_calls:
            numbers = call.values
            product = int(numbers["a"]) * int(numbers["b"])
            print(f"called {call.name} with {call.arguments}: {product}")
            turns.append(call.answered(str(product)))
        print(mesh.ask(turns, tools=[MULTIPLY], tool_choice="none", max_tokens=200).text)


if __name__ == "__main__":
    main()
