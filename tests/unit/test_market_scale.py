"""How strong contexts are beside one another, and who gives pages up before whom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_engine.market.book import Book, Standing, firmness
from pie_engine.market.clearing import rent, rents
from pie_engine.market.columns import Ints
from pie_engine.market.ordering import Givers
from pie_engine.market.scale import Scale

VALUES = st.integers(0, 1 << 50) | st.integers(0, 3)


def array(values: list[int]) -> Ints:
    return np.array(values, np.int64)


def assert_graded(scale: Scale, values: list[int]) -> None:
    """The stronger has the smaller grade, equals have the same."""
    grades = scale.grades.tolist()
    assert scale.values.tolist() == values
    assert len(grades) == len(values)
    by_value = dict(zip(values, grades, strict=True))
    assert [by_value[value] for value in values] == grades
    assert sorted(by_value, reverse=True) == sorted(by_value, key=by_value.__getitem__)
    assert len(set(by_value.values())) == len(by_value)


@pytest.mark.parametrize("values", [[], [7], [3, 3, 3], [5, 0, 5, 9]])
def test_the_strongest_has_grade_0(values: list[int]) -> None:
    scale = Scale(array(values))
    assert_graded(scale, values)
    assert not values or scale.grades.min() == 0


@given(
    values=st.lists(VALUES, max_size=12),
    changes=st.lists(st.tuples(st.dictionaries(st.integers(0, 11), VALUES), st.lists(VALUES, max_size=4)), max_size=5),
    asks_between=st.booleans(),
)
def test_who_comes_or_changes_is_put_among_the_others(
    values: list[int], changes: list[tuple[dict[int, int], list[int]]], asks_between: bool
) -> None:
    there, scale = dict(enumerate(values)), Scale(array(values))
    for changed, new in changes:
        if asks_between:
            assert_graded(scale, list(there.values()))
        change = {row: value for row, value in changed.items() if row in there}
        change |= dict(enumerate(new, len(there)))
        if change:
            there |= change
            scale.change(array(list(change)), array(list(change.values())))
    assert_graded(scale, list(there.values()))


HOLDERS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(list(Standing)[1:]), st.integers(0, 1 << 40), st.booleans()),
    min_size=1,
    max_size=20,
    unique_by=lambda holder: holder[2],
)


@given(holders=HOLDERS, asking=st.integers(0, 19))
def test_who_is_weaker_gives_way_then_who_is_away_then_who_is_younger(
    holders: list[tuple[int, Standing, int, bool]], asking: int
) -> None:
    grades, standings, ages, holds = zip(*holders, strict=True)
    rows = [row for row in range(len(holders)) if holds[row]]

    def place(row: int) -> tuple[int, int, int]:
        youth = ages[row] if standings[row] == Standing.IDLE else -ages[row]
        return -grades[row], standings[row], youth

    book = Book()
    for row, (_, standing, age, is_holder) in enumerate(holders):
        stand(book, standing, age)
        book.num_pages[row] = is_holder * (row + 1)
    givers = Givers(array(rows), array([grades[row] for row in rows]), book)
    in_order = sorted(rows, key=place)
    assert givers.rows.tolist() == in_order
    assert givers.num_pages.tolist() == [row + 1 for row in in_order] + [0]
    asking %= len(holders)
    mine = (-grades[asking], Standing.RUNNABLE, -ages[asking])
    num_before = givers.num_before(grades[asking], firmness(Standing.RUNNABLE, ages[asking]))
    assert in_order[:num_before] == [row for row in in_order if place(row) < mine]
    kept = rows[::2] + [row for row in range(len(holders)) if not holds[row]]
    givers.keep(kept)
    assert givers.num_pages.tolist() == [0 if row in kept else row + 1 for row in in_order] + [0]


def stand(book: Book, standing: Standing, age: int) -> None:
    """A new row, of that standing and age."""
    row = book.open(0, age)
    if standing != Standing.IDLE:
        book.wake(row, age, 0, 0)
    if standing == Standing.PARKED:
        book.park(row)


@given(bid=st.integers(0, 1 << 61), charge=st.integers(0, 1 << 40))
def test_one_pays_what_it_would_pay_among_others(bid: int, charge: int) -> None:
    assert rent(bid, charge) == rents(array([bid]), array([bid]), array([charge]))[0]
