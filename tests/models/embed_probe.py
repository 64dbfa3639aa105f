"""`python embed_probe.py MODEL < TEXTS`: what llama.cpp makes of the texts of a JSON array.

Printed as JSON: of each its tokens, and its vector with the pooling that the file asks for.
llama.cpp gets a process of its own, as in the program.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

import llama_cpp as llama


def main(path: str, texts: list[str]) -> list[dict[str, Any]]:
    """Tokens and vector of each text."""
    quiet = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    loading = llama.llama_model_default_params()
    loading.use_extra_bufts = False  # as the engine
    model = llama.llama_model_load_from_file(path.encode(), loading)
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 512
    parameters.embeddings = True
    parameters.n_threads = parameters.n_threads_batch = 2
    context = llama.llama_init_from_model(model, parameters)
    return [embedded(model, context, text.encode()) for text in texts]


def embedded(model: Any, context: Any, raw: bytes) -> dict[str, Any]:
    """One text."""
    vocabulary = llama.llama_model_get_vocab(model)
    buffer = (llama.llama_token * 512)()
    count = llama.llama_tokenize(vocabulary, raw, len(raw), buffer, 512, True, False)
    batch = llama.llama_batch_get_one(buffer, count)
    if llama.llama_encode(context, batch) != 0:
        raise RuntimeError("llama.cpp could not encode")
    vector = llama.llama_get_embeddings_seq(context, 0)
    width = llama.llama_model_n_embd(model)
    return {"tokens": buffer[:count], "vector": vector[:width]}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.load(sys.stdin))))
