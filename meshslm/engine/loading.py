"""From the command to load a model to the loop that serves it.

Rules:
- What the model does not need is given up before its file is opened.
- The file's header is read and checked by this program before llama.cpp sees the file, at each
  load: a file may have changed since it was stored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from meshslm.engine import sandbox
from meshslm.engine.adapters import Adapters
from meshslm.engine.cores import ThreadChoice
from meshslm.engine.drafts import Drafter
from meshslm.engine.embedding import EncoderWorker, load_encoder
from meshslm.engine.gguf import GgufHeader
from meshslm.engine.gguf_model import read_model
from meshslm.engine.guessing import Guesser
from meshslm.engine.intake import Intake
from meshslm.engine.kinds import Pooling, pooling_of
from meshslm.engine.llama import BUILD, Model, offloads
from meshslm.engine.loop import Worker
from meshslm.engine.offload import plan
from meshslm.engine.pipe import Pipe
from meshslm.engine.prefix_cache import TILE
from meshslm.engine.protocol import Load, Loading, Ready
from meshslm.engine.states import StateStore, key_of, make_folder
from meshslm.engine.steps import Shape
from meshslm.engine.templates import ChatTemplate
from meshslm.engine.vocabularies import check_draft
from meshslm.errors import OurFault
from meshslm.limits import MIB

log = logging.getLogger("meshslm.engine.worker")


def load(pipe: Pipe, command: Load) -> tuple[Worker | EncoderWorker, ThreadChoice]:
    """Check and load the model, telling how far it is. Raises `OurFault`."""
    path = Path(command.path)
    if command.states:
        make_folder(Path(command.states))
    confinement = confine(command)
    header = read_model(path)
    if not header.tensors:
        raise OurFault(f"{path.name} has no weights")
    if header.text("general.type") == "adapter":
        raise OurFault(f"{path.name} is an adapter, which needs the model that it was made for")
    threads = ThreadChoice(command.threads)
    told = [-1.0]

    def progress(fraction: float) -> None:
        if fraction - told[0] >= 0.05 or fraction >= 1.0:
            told[0] = fraction
            pipe.send([Loading(round(fraction, 3))])

    loading = load_decoder if pooling_of(header) is Pooling.NONE else load_encoder
    worker, ready = loading(pipe, command, header, threads, progress)
    confined = {"sandbox": confinement.held, "unconfined": confinement.lacking}
    pipe.send([msgspec.structs.replace(ready, **confined)])
    return worker, threads


def load_decoder(
    pipe: Pipe,
    command: Load,
    header: GgufHeader,
    threads: ThreadChoice,
    progress: Callable[[float], None],
) -> tuple[Worker, Ready]:
    """Load a model that generates. Raises `OurFault`."""
    shape = Shape(command.slots, command.context, command.batch)
    model = Model(
        Path(command.path),
        context=shape.context,
        slots=shape.slots,
        batch=shape.batch,
        threads=threads.threads,
        on_progress=progress,
        gpu_layers=(on_gpu := layers_on_gpu(command, header)),
    )
    vocabulary = model.vocabulary
    template = ChatTemplate(
        header.chat_template,
        bos=vocabulary.text_of(vocabulary.bos),
        eos=vocabulary.text_of(vocabulary.eos),
        control_texts=tuple(vocabulary.control_tokens()),
    )
    intake = Intake(vocabulary, template, shape.context, shape.slots)
    ready = Ready(
        slots=shape.slots,
        context=shape.context,
        vocabulary=vocabulary.size,
        parameters=model.parameters,
        quantisation=header.quantisation,
        description=model.description,
        threads=threads.threads,
        gpu_layers=on_gpu,
    )
    worker = Worker(pipe, model, intake, shape, Adapters(model, header))
    if command.draft:
        drafter, why = load_draft(command, threads.threads)
        worker.guesser = Guesser(drafter)
        ready = msgspec.structs.replace(ready, draft=drafter is not None, undrafted=why)
    worker.guesser.enabled = command.guesses
    store = open_states(command)
    if store is not None:
        worker.keep_states(store)
    return worker, ready


def load_draft(command: Load, threads: int) -> tuple[Drafter | None, str]:
    """Load the draft model; or else why the model goes without one.

    Raises `OurFault` for one of another vocabulary: that would never guess right.
    """
    target, path = Path(command.path), Path(command.draft)
    try:
        header = read_model(path)
    except OurFault as fault:
        return None, str(fault)
    check_draft(target.name, target, path.name, path)
    lone = msgspec.structs.replace(command, slots=1)
    try:
        model = Model(
            path,
            context=command.context,
            slots=1,
            batch=TILE,
            threads=threads,
            on_progress=lambda _: None,
            gpu_layers=layers_on_gpu(lone, header),
            exact=False,
        )
        return Drafter(model, command.context), ""
    except OurFault as fault:
        return None, f"{path.name}: {fault}"


def open_states(command: Load) -> StateStore | None:
    """The folder of kept states, if there is to be one."""
    if not command.states or command.states_mib <= 0:
        return None
    path = Path(command.path)
    stat = path.stat()
    key = key_of(path.name, stat.st_size, stat.st_mtime_ns, BUILD)
    try:
        return StateStore(Path(command.states), key, command.states_mib * MIB)
    except OSError as error:
        log.warning("no states are kept: %s", error)
        return None


def layers_on_gpu(command: Load, header: GgufHeader) -> int:
    """Layers that go to a GPU: as many as were asked for, or as fit; none without one."""
    if not offloads():
        return 0
    if command.gpu_layers is not None:
        return command.gpu_layers
    from meshslm.engine.llama_devices import gpu_free_mib  # noqa: PLC0415 - only with a GPU

    return plan(header, gpu_free_mib(), command.context, command.slots, command.batch).layers


def confine(command: Load) -> sandbox.Confinement:
    """Give up what the model does not need. Raises `OurFault`."""
    if command.sandbox == "off":
        return sandbox.Confinement((), ("the sandbox is switched off",))
    draft = Path(command.draft).resolve()
    return sandbox.enter(
        Path(command.path),
        readable=(*command.readable, *((str(draft),) if draft.is_file() else ())),
        writable=(*command.writable, *((command.states,) if command.states else ())),
        private_mib=command.private_mib,
        gpu=offloads(),
        required=command.sandbox == "required",
    )
