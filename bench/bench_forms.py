"""Answers of a given form against free text, through the same worker, in turn.

`python -m bench.bench_forms [MODEL.gguf]` prints a table; `measure()` gives its rows. Both sides
get the same prompts; the schema has no end before the last token, and a free text that ends early
is counted by the tokens that it made. Beside that, what a mask over the whole vocabulary costs
here and in llama.cpp's own grammar sampler.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from dataclasses import replace
from pathlib import Path

import llama_cpp as llama
import numpy as np
import trio
from llama_cpp.llama_grammar import json_schema_to_gbnf

from bench.engines import GREEDY, default_model, repeated, running
from bench.table import Row, markdown, spread
from bench.turns import Effort, say, speeds, take_turns
from meshslm.adapters.engine_process import EngineSpec
from meshslm.engine.cores import cores
from meshslm.engine.grammar import Grammars, together, with_options
from meshslm.engine.llama import Vocabulary
from meshslm.engine.tool_formats import in_words
from meshslm.wire.messages import ChatMessage, Constraint, Sampling, TaskRequest, Tool

TOKENS = 96
LEAST = 0.9
EFFORT = Effort(least=3, most=5, budget_s=30)
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "likes": {"type": "array", "items": {"enum": ["tea", "rain", "maps", "bread"]}},
        "code": {"type": "string", "pattern": "^[a-z]{2,12}-[0-9]{2,4}$"},
    },
    "required": ["name", "age", "likes", "code"],
    "additionalProperties": False,
}
PEOPLE = {"type": "array", "items": PERSON, "minItems": 99}
VALUE = json.dumps(
    [
        {"name": "Ada of the hills", "age": 36, "likes": ["tea", "maps"], "code": "north-42"},
        {"name": "Bo", "age": 7, "likes": [], "code": "sea-1234"},
    ]
)
PLACES = ("Rome", "Oslo", "Lima", "Cairo", "Quito", "Hanoi", "Perth", "Lagos")
FREE = tuple(
    TaskRequest(
        "bench",
        messages=(ChatMessage("user", f"Describe many people who live in {place}, at length."),),
        max_tokens=TOKENS,
        sampling=GREEDY,
    )
    for place in PLACES
)
BOUND = Constraint("json_schema", json.dumps(PEOPLE))
LAMP = Tool("lamp", "Turns a lamp on or off.", json.dumps({"type": "object", "properties": {}}))


KINDS = (
    ("a schema, temperature 0", 0.0),
    ("a schema, temperature 1", 1.0),
    ("tools at hand, none called", 0.0),
)


def _pair(what: str, request: TaskRequest) -> tuple[TaskRequest, TaskRequest]:
    """Free and bound, with the same prompt."""
    if what.startswith("a schema"):
        return request, replace(request, constraint=BOUND)
    told = in_words(request.messages, (LAMP,))
    return replace(request, messages=told), replace(request, tools=(LAMP,))


async def _speeds(path: Path, effort: Effort) -> list[Row]:
    rows = []
    async with running(EngineSpec("bench", path, 1024, len(PLACES), len(cores()))) as client:
        for what, heat in KINDS:
            for count in (1, len(PLACES)):
                say(f"{count} at a time, {what}")
                sampling = Sampling(temperature=heat, seed=1)
                asked = [replace(request, sampling=sampling) for request in FREE[:count]]
                free, bound = zip(*(_pair(what, request) for request in asked), strict=True)
                made = await take_turns(
                    {"free": repeated(client, free), "bound": repeated(client, bound)}, effort
                )
                title = f"{count} at a time, {what}"
                rows.append(speeds(title, made["bound"], "free text", made["free"], LEAST))
    return rows


def _vocabulary(path: Path) -> tuple[object, Vocabulary]:
    parameters = llama.llama_model_default_params()
    parameters.vocab_only = True
    model = llama.llama_model_load_from_file(str(path).encode(), parameters)
    handle = llama.llama_model_get_vocab(model)
    return handle, Vocabulary(handle)


def masks(path: Path) -> list[Row]:
    """What compiling and masking cost, here and in llama.cpp's own grammar sampler."""
    handle, vocabulary = _vocabulary(path)
    grammars = Grammars(vocabulary)
    began = time.perf_counter()
    grammars.prepare()
    prepared_ms = 1000 * (time.perf_counter() - began)
    tokens = vocabulary.tokens(VALUE, special=False)
    schema = {**PEOPLE, "minItems": 2}
    began = time.perf_counter()
    matcher = grammars.matcher(together("start: @s\n", {"s": with_options(schema)}))
    compiled_ms = 1000 * (time.perf_counter() - began)
    ours = []
    for token in tokens:
        began = time.perf_counter()
        matcher.allowed()
        ours.append(1000 * (time.perf_counter() - began))
        matcher.accept(token)
    began = time.perf_counter()
    gbnf = json_schema_to_gbnf(json.dumps(schema))
    sampler = llama.llama_sampler_init_grammar(handle, gbnf.encode(), b"root")
    their_compiled_ms = 1000 * (time.perf_counter() - began)
    theirs = []
    data = (llama.llama_token_data * vocabulary.size)()
    candidates = np.ctypeslib.as_array(data)
    candidates["id"] = np.arange(vocabulary.size)
    array = llama.llama_token_data_array(
        data=ctypes.cast(data, ctypes.POINTER(llama.llama_token_data)),
        size=vocabulary.size,
        selected=-1,
        sorted=False,
    )
    for token in tokens:
        candidates["logit"] = 0.0
        began = time.perf_counter()
        llama.llama_sampler_apply(sampler, ctypes.byref(array))
        theirs.append(1000 * (time.perf_counter() - began))
        if not np.isfinite(candidates["logit"][token]):
            raise SystemExit("the two do not agree on the example")
        llama.llama_sampler_accept(sampler, token)
    return [
        Row(f"{vocabulary.size} tokens made ready, once a worker", f"{prepared_ms:.0f} ms"),
        Row("Schema compiled", f"{compiled_ms:.2f} ms", f"llama.cpp {their_compiled_ms:.2f} ms"),
        Row(
            "Mask over the vocabulary, each token",
            spread(ours, "ms", 2),
            f"llama.cpp {spread(theirs, 'ms', 2)}",
            f"{sum(ours) / sum(theirs):.4f}",
        ),
    ]


def measure(path: Path | None = None, effort: Effort = EFFORT) -> list[Row]:
    """The rows for the page of figures."""
    path = path or default_model()
    return [*masks(path), *trio.run(_speeds, path, effort)]


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    print(markdown(measure(parser.parse_args().model)))


if __name__ == "__main__":
    main()
