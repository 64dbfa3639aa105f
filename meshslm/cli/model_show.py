"""What `meshslm models show` tells of one model: where it is from, and what memory it will need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshslm.cli.model_progress import parameters_text
from meshslm.cli.screen import bytes_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshslm.models.model_library import StoredModel
    from meshslm.settings import EngineSettings


def shown(model: StoredModel) -> dict[str, Any]:
    """A stored model, for programs."""
    from msgspec import to_builtins

    told: dict[str, Any] = to_builtins(model.manifest)
    return {**told, "state": model.state, "path": str(model.path)}


def memory(
    model: StoredModel, engine: EngineSettings, adapters: Iterable[int] = ()
) -> dict[str, Any] | None:
    """Memory that it takes when it is loaded so, for programs; None where its file is damaged.

    `adapters` are the sizes in bytes of its stored adapters.
    """
    from meshslm.engine.estimate import draft_mib, estimate
    from meshslm.engine.gguf import read_header

    if model.state == "damaged":
        return None
    trained = model.manifest.context_length
    context = min(engine.context or trained, trained) if trained else engine.context
    header = read_header(model.path)
    found = estimate(header, context, engine.slots, engine.batch, adapters)
    return {
        "context": context,
        "slots": engine.slots,
        "batch": engine.batch,
        "weights_mib": _rounded(found.weights_mib),
        "kv_mib": _rounded(found.kv_mib),
        "compute_mib": _rounded(found.compute_mib),
        "process_mib": _rounded(found.process_mib),
        "scoring_mib": _rounded(found.scoring_mib),
        "adapters_mib": _rounded(found.adapters_mib),
        "total_mib": _rounded(found.total_mib),
        "unknown": found.unknown,
        "draft_mib": _rounded(draft_mib(header, context)),
    }


def fields(model: StoredModel, needed: dict[str, Any] | None) -> list[tuple[str, object]]:
    """A stored model, for people."""
    about = model.manifest
    original = f"{about.original.quantisation}, {bytes_text(about.original.size)}"
    if about.converted_from:
        original += f", by {about.converted_by} from {about.converted_from}"
    prepared = "no: used as it came"
    if about.prepared is not None:
        size = bytes_text(about.prepared.size)
        prepared = f"{about.prepared.quantisation}, {size}, by {about.prepared_by}"
    use = "yes" if about.chat_template else "no: completions only"
    if about.architecture in _encoders():
        use = "no: embeddings only"
    if about.adapter_of:
        use = f"that of {about.adapter_of}, for which it is an adapter"
    return [
        ("name", about.name),
        ("state", model.state),
        ("description", about.description or "-"),
        ("licence", about.licence or "-"),
        ("architecture", about.architecture),
        ("parameters", parameters_text(about.parameters)),
        ("context", f"{about.context_length} tokens"),
        ("chat template", use),
        ("source", about.source),
        ("original", original),
        ("prepared", prepared),
        ("digest", about.used.sha256),
        ("pinned", "yes" if about.pinned else "no: its digest was not known beforehand"),
        ("pulled", about.pulled_at),
        ("file", model.path),
        ("memory", _memory_text(needed) if needed else "not known: its file is damaged"),
        ("as a draft", f"{needed['draft_mib']:.0f} MiB" if needed else "-"),
    ]


def _memory_text(needed: dict[str, Any]) -> str:
    """The estimate in a line, such as `306 MiB: weights 136, ...`."""
    parts = [("weights", "weights_mib"), ("KV", "kv_mib"), ("buffers", "compute_mib")]
    parts += [("worker", "process_mib"), ("echo", "scoring_mib"), ("adapters", "adapters_mib")]
    known = [(label, needed[key]) for label, key in parts]
    listed = ", ".join(f"{label} {size:.0f}" for label, size in known if size)
    for_what = f"{needed['slots']} slots of {needed['context']} tokens"
    if needed["total_mib"] is None:
        return f"more than {listed} MiB with {for_what}: {needed['unknown']}"
    return f"{needed['total_mib']:.0f} MiB with {for_what}: {listed}"


def _encoders() -> frozenset[str]:
    from meshslm.engine.kinds import ENCODERS

    return ENCODERS


def _rounded(size: float | None) -> float | None:
    return None if size is None else round(size, 1)
