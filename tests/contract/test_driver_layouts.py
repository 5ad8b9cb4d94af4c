"""Rows whose tokens do not see all before them: the same on every driver, however they are cut and placed."""

from __future__ import annotations

import pytest

from pie_engine.driver.base import Driver, Row
from pie_engine.kv.layout import Layout
from pie_engine.protocol.sampling import GREEDY, Probes, Sampler
from tests.layouts import Line, random_line

LENGTH = 80


def run(driver: Driver, line: Line, cuts: list[int]) -> list[int | None]:
    """The greedy token after each chunk."""
    tokens: list[int | None] = []
    for first, end in zip([0, *cuts], [*cuts, len(line.tokens)], strict=True):
        line.leave_out(first)
        [result] = driver.execute([line.row(first, end)])
        assert result.error is None
        tokens.append(result.token)
    return tokens


@pytest.mark.parametrize("seed", [0, 1])
def test_however_it_is_cut_and_placed(driver: Driver, seed: int) -> None:
    every = run(driver, random_line(list(range(8)), LENGTH, seed), list(range(1, LENGTH)))
    cuts = [5, 21, 22, 40, 57, 58, 77]
    chunked = run(driver, random_line([33, 2, 50, 17, 9, 60, 41, 5], LENGTH, seed), cuts)
    assert chunked == [every[end - 1] for end in [*cuts, LENGTH]]


def test_pages_that_were_left_out_belong_to_others(driver: Driver) -> None:
    """Row by row beside one that takes over whatever page has become free."""
    expected = run(driver, random_line(list(range(8)), LENGTH, 2), list(range(1, LENGTH)))
    line, tokens, taken = random_line(list(range(8)), LENGTH, 2), [], 0
    for number in range(LENGTH):
        line.leave_out(number)
        rows = [line.row(number, number + 1)]
        rows += [Row([9] * 16, 0, [line.page_ids[page]], GREEDY) for page in line.dropped]
        taken += len(line.dropped)
        tokens.append(driver.execute(rows)[0].token)
    assert taken
    assert tokens == expected


def test_what_is_hidden_makes_a_difference_and_so_do_positions(driver: Driver) -> None:
    def after(line: Line, hidden: range = range(0)) -> list[float]:
        """The log-probability of token 9 after each of two chunks, the second of which does not see what is hidden."""
        found: list[float] = []
        for first, end in ((0, 40), (40, 55)):
            if first:
                line.hide(hidden, since=first)
            row = line.row(first, end)
            row.probes = Probes(logprobs_of=[9])
            found += driver.execute([row])[0].probed.logprobs
        return found

    def line(*, jumps_to: int = 45) -> Line:
        return Line(list(range(4))).add(range(5, 50)).add(range(50, 60), positions=range(jumps_to, jumps_to + 10))

    found = [after(line()), after(line(), hidden=range(3, 38)), after(line(jumps_to=50))]
    assert found[0][0] == found[1][0] == found[2][0]
    if driver.capabilities.driver != "fake":  # where this token is nearly always impossible
        assert len({second for _, second in found}) == 3


def test_what_is_seen_in_full_is_what_a_plain_row_sees(driver: Driver) -> None:
    line, other = (Line(list(range(first, first + 4))).add(range(5, 60)) for first in (0, 10))
    for first, end in ((0, 30), (30, 31), (31, 55)):
        [plain] = driver.execute([line.row(first, end, is_plain=True)])
        [found] = driver.execute([other.row(first, end)])
        assert found.token == plain.token
    # Either goes on where the other has stopped.
    token = plain.token
    assert token is not None
    one, two = (each.add([token]) for each in (line, other))
    assert driver.execute([one.row(55, 56)])[0].token == driver.execute([two.row(55, 56, is_plain=True)])[0].token


def test_drafts_see_what_their_layout_says(driver: Driver) -> None:
    line, every = random_line(list(range(8)), LENGTH, 3), []
    for number in range(LENGTH):
        line.leave_out(number)
        every.append(driver.execute([line.row(number, number + 1)])[0].token)
        if LENGTH - 5 <= number < LENGTH - 1:  # right drafts: what follows a wrong one may be anything
            line.tokens[number + 1] = every[-1]
    line.leave_out(LENGTH - 6)
    row = line.row(LENGTH - 6, LENGTH)
    row.draft_uniforms = [0.0] * 4
    [result] = driver.execute([row])
    assert [sample.token for sample in result.before_drafts] == every[LENGTH - 5 : -1]
    assert result.token == every[-1]


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (Layout([(0, 0)], []), "what 0 of 1 tokens see"),
        (Layout([(0, 0)], [[]]), "the token in slot 2 sees"),
        (Layout([(0, 0)], [[(0, 2)]]), "the token in slot 2 sees"),
        (Layout([(0, 0)], [[(0, 4)]]), "the token in slot 2 sees"),
        (Layout([(0, 0)], [[(0, 2), (2, 3)]]), "spans"),
        (Layout([(0, 0)], [[(0, 0), (2, 3)]]), "spans"),
        (Layout([(0, 0)], [[(-2, 3)]]), "spans"),
        (Layout([(0, -1)], [[(0, 3)]]), "position -1"),
        (Layout([(0, 0), (2, 100_000)], [[(0, 3)]]), "100001 positions"),
        (Layout([(1, 0)], [[(0, 3)]]), "from slot"),
        (Layout([(0, 0), (2, 5), (2, 6)], [[(0, 3)]]), "runs at slots"),
    ],
)
def test_a_layout_that_is_our_bug_is_an_assertion(driver: Driver, layout: Layout, says: str) -> None:
    driver.execute([Row([5, 6], 0, [0])])
    with pytest.raises(AssertionError, match=says):
        driver.execute([Row([7], 2, [0], GREEDY, layout=layout)])


@pytest.mark.parametrize("new_driver", ["fake"], indirect=True)
def test_the_fake_knows_where_a_slot_stands_and_whether_it_was_written(driver: Driver) -> None:
    driver.execute([Row([5, 6, 7], 0, [0]), Row([5, 6, 7], 0, [1])])
    with pytest.raises(AssertionError, match="slot 1 was written for position 1, not 4"):
        driver.execute([Row([8], 3, [0], GREEDY, layout=Layout([(0, 0), (1, 4)], [[(0, 4)]]))])
    with pytest.raises(AssertionError, match="slot 3 was never written"):
        driver.execute([Row([8], 4, [1], GREEDY, layout=Layout([(0, 0)], [[(0, 5)]]))])


@pytest.mark.parametrize("new_driver", ["fake"], indirect=True)
def test_the_fake_depends_on_what_was_seen_on_the_way(driver: Driver) -> None:
    """The last token sees the same tokens at the same positions, but one of them has seen less."""
    short, full = (Line([page]).add(range(5, 10)) for page in (0, 1))
    full.seen[4] = short.seen[4] = {0, 3, 4}
    short.seen[3] = {2, 3}
    assert run(driver, full, [4])[1] != run(driver, short, [4])[1]


def test_sampling_in_company(driver: Driver) -> None:
    lines = [random_line(list(range(8 * i, 8 * i + 8)), 60, i) for i in range(3)]
    alone = []
    for line in lines:
        run(driver, line, [59])
        alone.append(driver.execute([line.row(59, 60, Sampler(1.0))])[0].token)
    together = driver.execute([line.row(59, 60, Sampler(1.0)) for line in lines])
    assert [result.token for result in together] == alone
