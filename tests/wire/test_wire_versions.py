"""Two nodes find the same version, or both find none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshslm.wire.versions import OURS, negotiate

ranges = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(lambda two: (min(two), max(two)))


@given(ours=ranges, theirs=ranges)
def test_both_sides_find_the_highest_common_version(
    ours: tuple[int, int], theirs: tuple[int, int]
) -> None:
    common = set(range(ours[0], ours[1] + 1)) & set(range(theirs[0], theirs[1] + 1))
    assert negotiate(ours, theirs) == negotiate(theirs, ours) == (max(common) if common else None)


def test_a_range_that_is_upside_down_has_nothing_in_common() -> None:
    assert negotiate((1, 3), (3, 1)) is None
    assert negotiate(OURS, OURS) == OURS[1]
