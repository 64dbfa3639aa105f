"""A place where a template of a stranger can do no harm: Jinja's sandbox, with time and memory.

Jinja's immutable sandbox keeps a template from the program's objects. It does not keep it from
looping for ever, or from writing a gigabyte.

Rules:
- Compiling is bounded as rendering is: constant parts are computed when a template is compiled.
- The kernel counts: processor time by an interval timer, memory by a limit on the address space
  that holds for the time of the call. Whatever a template calls in C is bounded by its memory, but
  for arithmetic of huge numbers, which is refused.
- Only for the main thread, and with no other thread at work: a limit holds for a whole process.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from meshslm.limits import MIB

SECONDS: Final = 1.0
"""Processor time of one call; published templates take a millisecond or two."""
AGAIN_SECONDS: Final = 0.05
"""Time between two reminders, should the first be swallowed."""
MEMORY_BYTES: Final = 128 * MIB
"""More than 60 times the longest conversation."""
LARGEST: Final = 2**64
"""Numbers that a template may multiply or divide; longer ones would take time by their square."""
_ARITHMETIC: Final = frozenset({"*", "/", "//", "%", "**"})
_WITHOUT_FILTERS: Final = ("urlize", "wordwrap", "striptags", "random", "pprint", "xmlattr")
"""Nothing that a prompt needs: slow on hostile texts, or different each time."""
_WITHOUT_GLOBALS: Final = ("lipsum",)


class Overrun(Exception):
    """A template took too much; the message says of what."""


class _TimeIsUp(BaseException):
    """Nothing in a template, or in Jinja, catches it."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Where templates are compiled and rendered, inside `bounded()`."""

    intercepted_binops = _ARITHMETIC

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise
        for name in _WITHOUT_FILTERS:
            del self.filters[name]
        for name in _WITHOUT_GLOBALS:
            del self.globals[name]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute, unless the numbers are huge."""
        for value in (left, right):
            if isinstance(value, int) and abs(value) > LARGEST:
                raise SecurityError(f"a number of {value.bit_length()} bits")
        if operator == "**" and isinstance(right, int) and abs(right) > 64:
            raise SecurityError(f"a power of {right}")
        return super().call_binop(context, operator, left, right)

    def compiled(self, source: str) -> Template:
        """Compile. Raises `TemplateError`, `Overrun`."""
        with bounded():
            try:
                return self.from_string(source)
            except (RecursionError, SyntaxError, ArithmeticError, ValueError, TypeError) as error:
                raise TemplateError(f"it cannot be compiled: {error}") from error


@contextlib.contextmanager
def bounded(seconds: float = SECONDS, memory: int = MEMORY_BYTES) -> Iterator[None]:
    """Bound what the body takes of processor time and memory. Raises `Overrun`."""
    before = signal.signal(signal.SIGPROF, _on_time)
    try:
        with _memory(memory):
            signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN_SECONDS)
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
    except _TimeIsUp:
        signal.setitimer(signal.ITIMER_PROF, 0)
        raise Overrun(f"more than {seconds:g} s of processor time") from None
    except MemoryError:
        raise Overrun(f"more than {memory // MIB} MiB of memory") from None
    finally:
        signal.signal(signal.SIGPROF, before)


def _on_time(_: int, __: FrameType | None) -> NoReturn:
    raise _TimeIsUp


@contextlib.contextmanager
def _memory(most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:  # a system without it has no limit to set either
        yield
        return
    room = pages * resource.getpagesize() + most
    limits = [room] + [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _to_json(value: object, indent: int | None = None, **_: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
