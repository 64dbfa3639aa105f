"""An answer that a program can read: JSON that keeps a schema, whatever the model.

    python examples/json_schema.py

Needs a running node (`meshslm up`, or `make run`); MESHSLM_URL says where, if not on this machine.
"""

from __future__ import annotations

import json
import os

from meshslm.client import DEFAULT_URL, Client, json_form

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "born": {"type": "integer"},
        "known_for": {"type": "string", "maxLength": 80},
    },
    "required": ["name", "born", "known_for"],
    "additionalProperties": False,
}


def main() -> None:
    """Ask about a person, and read the answer as data."""
    with Client(os.environ.get("MESHSLM_URL", DEFAULT_URL)) as mesh:
        answer = mesh.ask(
            "Who was Ada Lovelace? Answer in JSON.",
            response_format=json_form("person", PERSON),
            max_tokens=200,
            temperature=0.0,
        )
    person = json.loads(answer.text)
    for field in PERSON["properties"]:
        print(f"{field}: {person[field]}")


if __name__ == "__main__":
    main()
