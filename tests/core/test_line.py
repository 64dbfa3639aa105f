"""Who is next: priorities without starvation, and fair shares of tenants."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshslm.core.line import PASSES, TENANTS, Line

TENANT = st.sampled_from(["a", "b", "c"])
arrivals = st.lists(st.tuples(TENANT, st.booleans(), st.integers(1, 500)), max_size=60)

Entry = tuple[int, str, bool, int]


def filled(given_arrivals: list[tuple[str, bool, int]]) -> Line[Entry]:
    line: Line[Entry] = Line()
    for number, (tenant, background, cost) in enumerate(given_arrivals):
        line.add((number, tenant, background, cost), tenant, background=background)
    return line


def drain(line: Line[Entry]) -> list[tuple[Entry, bool]]:
    taken = []
    while line:
        expected = line.next()
        entry, aged = line.take()
        assert entry == expected
        line.charge(entry[1], entry[3])
        taken.append((entry, aged))
    assert line.next() is None
    return taken


@given(arrivals)
def test_one_tenants_entries_of_a_kind_keep_their_order(given: list[tuple[str, bool, int]]) -> None:
    taken = [entry for entry, _ in drain(filled(given))]
    assert sorted(taken) == [(n, *arrival) for n, arrival in enumerate(given)]
    for tenant in "abc":
        for background in (False, True):
            own = [e[0] for e in taken if e[1] == tenant and e[2] == background]
            assert own == sorted(own)


@given(st.lists(st.tuples(TENANT, st.integers(1, 500)), max_size=80))
def test_no_tenant_is_ahead_by_more_than_two_entries_while_others_wait(
    given: list[tuple[str, int]],
) -> None:
    line = filled([(tenant, False, cost) for tenant, cost in given])
    waiting = {t: sum(1 for other, _ in given if other == t) for t in "abc"}
    served = dict.fromkeys("abc", 0)
    for entry, _ in drain(line):
        _, tenant, _, cost = entry
        waiting[tenant] -= 1
        served[tenant] += cost
        for other in "abc":
            if waiting[other] and other != tenant:
                assert served[tenant] - served[other] <= 2 * 500


def test_background_waits_for_interactive_but_not_for_ever() -> None:
    line = filled([("a", True, 1), ("a", True, 1)] + [("a", False, 1)] * 40)
    kinds = [(entry[2], aged) for entry, aged in drain(line)]
    turns = [place for place, (background, _) in enumerate(kinds) if background]
    assert turns == [PASSES, 2 * PASSES + 1]
    assert all(kinds[place] == (True, True) for place in turns)


def test_background_work_alone_is_not_aged() -> None:
    assert [aged for _, aged in drain(filled([("a", True, 1)] * 3))] == [False] * 3


def test_whoever_was_away_has_no_credit() -> None:
    line = filled([("a", False, 500)] * 4)
    for _ in range(3):
        line.take()
        line.charge("a", 500)
    line.add((9, "b", False, 500), "b")
    line.add((10, "b", False, 500), "b")
    order = [entry[1] for entry, _ in drain(line)]
    assert order == ["a", "b", "b"]


def test_who_is_put_back_is_first_of_its_tenant() -> None:
    line = filled([("a", True, 1)] * 3)
    entry, _ = line.take()
    line.put_back(entry, "a", background=True)
    assert [e[0] for e, _ in drain(line)] == [0, 1, 2]


def test_entries_can_be_taken_away() -> None:
    line = filled([("a", False, 1), ("b", True, 1), ("a", False, 1)])
    line.remove(lambda entry: entry[1] == "a")
    assert [entry[0] for entry in line] == [1]
    assert (len(line), line.interactive) == (1, 0)


def test_only_so_many_tenants_are_remembered() -> None:
    line: Line[int] = Line()
    for number in range(2 * TENANTS):
        line.add(number, str(number))
        line.take()
        line.charge(str(number), 1)
    assert len(line._served) <= TENANTS + 1
