"""Words that say nothing of what a request is about: function words, and those that ask.

Where few domains are known, each of them stands in the card of one by chance, and would decide.
English alone: leaving out those of other languages was tried, and recognised fewer requests, since
a language tells something too.
"""

from __future__ import annotations

from typing import Final

COMMON: Final = frozenset(
    """
    a about after all am an and any are as at be best between both but by can could did do does
    each first for from get give go good had has have he her here him his how i if in into is it
    its let like long make many may me mean more most much must my need new no not now of old on
    one or our out over per please put s say see she should show so some start such t take tell
    than that the their them then there these they this those three time to too two under until up
    us use used very want was we well were what when where which while who whose why will with
    without would write yes yet you your
    """.split()  # noqa: SIM905 - a hundred quoted words are harder to read
)
