"""Templates that mean harm: they end in time, take little memory, and touch nothing."""

from __future__ import annotations

import resource
import signal
import time
from datetime import date

import pytest

from meshslm.engine.template_sandbox import Overrun, bounded
from meshslm.engine.templates import ChatTemplate
from meshslm.errors import OurFault, RequestFault
from meshslm.limits import MIB
from meshslm.wire.messages import ChatMessage

HELLO = (ChatMessage("user", "Hello"),)
NINES = "9" * 4000
DOUBLING = "{% set ns = namespace(x='x' * 1000) %}{% for i in range(60) %}{% set ns.x = "

HOSTILE = {
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "a loop that swallows": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{{ (messages | map(attribute='x') | list) and '' }}{% endfor %}{% endfor %}",
    "recursion without end": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "recursion like a tree": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}"
    "{% endmacro %}{{ m(60) }}",
    "text times number": "{{ messages[0].content * 10 ** 10 }}",
    "constant text times number": "{{ 'x' * 10 ** 10 }}",
    "doubled by ~": DOUBLING + "ns.x ~ ns.x %}{% endfor %}",
    "doubled by +": DOUBLING + "ns.x + ns.x %}{% endfor %}",
    "doubled by join": DOUBLING + "ns.x | join(ns.x) %}{% endfor %}",
    "doubled by replace": DOUBLING + "ns.x | replace('x', ns.x) %}{% endfor %}",
    "doubled by method": DOUBLING + "ns.x.replace('x', ns.x) %}{% endfor %}",
    "a wide field": "{{ '%1000000000d' % messages | length }}",
    "a wide format": "{{ '{:>1000000000}'.format(messages) }}",
    "a wide centre": "{{ messages[0].content | center(10 ** 10) }}",
    "a wide constant": "{{ 'x' | center(10 ** 10) }}",
    "lists of lists": "{% set ns = namespace(x=[1] * 1000) %}{% for i in range(60) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "a tower of powers": "{{ 10 ** (10 ** 10) }}",
    "a power of a power": "{% set ns = namespace(x=9) %}{% for i in range(99) %}"
    "{% set ns.x = ns.x ** 64 %}{% endfor %}",
    "squares of squares": "{% set ns = namespace(x=3) %}{% for i in range(99) %}"
    "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "division of huge numbers": f"{{{{ '{NINES}' | int // ('{NINES[:2000]}' | int) }}}}",
    "writes without end": "{% for a in range(99999) %}{{ 'x' * 10000 }}{% endfor %}",
    "reads a class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "reads a class by a filter": "{{ '' | attr('__class__') | attr('mro') }}",
    "reads a format's field": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "reads globals": "{{ raise_exception.__globals__.keys() }}",
    "reads the module": "{{ strftime_now.__self__.__dict__ }}",
    "reads a generator's frame": "{{ (messages | map('upper')).gi_frame.f_globals }}",
    "changes what it was given": "{{ messages.append(1) }}",
    "imports": "{% import 'os' as os %}{{ os.getcwd() }}",
    "includes": "{% include '/etc/passwd' %}",
    "lorem ipsum": "{{ lipsum(100000) }}",
    "a filter that is slow": "{{ messages[0].content | urlize }}",
    "no syntax": "{% for %}",
    "brackets": "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "too many brackets": "{{ " + "[" * 3000 + "1" + "]" * 3000 + " }}",
    "blocks in blocks": "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_templates_come_to_nothing(source: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with pytest.raises((OurFault, RequestFault)):
        ChatTemplate(source).render(HELLO, date(2026, 3, 1))
    assert time.process_time() - began < 8.0
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 400


def spin() -> None:
    while True:
        pass


def test_the_process_is_as_before() -> None:
    limit, handler = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)
    with pytest.raises(Overrun), bounded(0.1):
        spin()
    with pytest.raises(Overrun), bounded(memory=10 * MIB):
        bytearray(200 * MIB)
    with pytest.raises(ZeroDivisionError), bounded():
        _ = 1 / 0
    assert resource.getrlimit(resource.RLIMIT_AS) == limit
    assert signal.getsignal(signal.SIGPROF) is handler
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert len(bytearray(200 * MIB)) == 200 * MIB


def test_a_reminder_comes_where_the_first_was_swallowed() -> None:
    swallowed = 0

    def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                spin()
            except BaseException:
                swallowed += 1
                if swallowed == 3:
                    raise

    with pytest.raises(Overrun), bounded(0.05):
        stubborn()
    assert swallowed == 3


def test_what_templates_compute() -> None:
    template = ChatTemplate("{{ 7 % 3 }} {{ 2 ** 10 }} {{ 7 // 2 }} {{ '-' * 3 }} {{ 6 / 4 }}")
    assert template.render(HELLO, date(2026, 3, 1))[0].text == "1 1024 3 --- 1.5"
