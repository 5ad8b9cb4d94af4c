"""Children in the ledger of a core: their credits come out of their parent's, and go back, to the last one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.to_core import CloseProcess, Endow, OpenProcess
from tests.unit.core_rig import Rig


def rig() -> Rig:
    return Rig()


def account(rig: Rig, pid: str):
    return rig.core._scheduler.claims.ledger.account(pid)


def balances(rig: Rig, *pids: str) -> list[float]:
    return [account(rig, pid).balance / CREDIT for pid in pids]


def opened(endowment: int | None = 1000 * CREDIT, pid: str = "a", parent: str = "") -> OpenProcess:
    return OpenProcess(pid, "test", endowment=endowment, parent=parent)


def test_a_child_gets_what_it_is_given_out_of_what_its_parent_has():
    core = rig()
    core.send(opened(), opened(300 * CREDIT, "b", "a"))
    assert balances(core, "a", "b") == [700, 300]
    core.send(CloseProcess("b"))
    assert balances(core, "a") == [1000]
    assert account(core, "a").spent == 0


def test_one_that_names_no_sum_gets_an_eighth_of_what_is_left():
    core = rig()
    core.send(opened(), opened(None, "b", "a"), opened(None, "c", "a"), opened(None, "d", "b"))
    assert balances(core, "a", "b", "c", "d") == [765.625, 109.375, 109.375, 15.625]


def test_more_than_there_is_is_not_given():
    core = rig()
    core.send(opened(5 * CREDIT), opened(9 * CREDIT, "b", "a"), opened(1, "c", "a"))
    assert balances(core, "a", "b", "c") == [0, 5, 0]


def test_without_its_parent_a_child_has_nothing():
    core = rig()
    core.send(opened(7 * CREDIT, "b", "gone"), opened(None, "c", "gone"))
    assert balances(core, "b", "c") == [0, 0]


def test_what_its_owner_gives_a_child_is_its_own():
    core = rig()
    core.send(opened(), opened(100 * CREDIT, "b", "a"), Endow("b", 50 * CREDIT))
    assert balances(core, "a", "b") == [900, 150]


def test_a_parent_that_goes_first_leaves_nothing_behind():
    core = rig()
    core.send(opened(), opened(100 * CREDIT, "b", "a"), CloseProcess("a"))
    assert balances(core, "b") == [100]
    core.send(CloseProcess("b"))
    assert core.core._scheduler.claims.violations() == []


NAMES = st.sampled_from("abcdef")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), NAMES, st.none() | st.integers(0, 2000 * CREDIT), st.sampled_from(["", *"abcdef"])),
        st.tuples(st.just("close"), NAMES),
        st.tuples(st.just("endow"), NAMES, st.integers(0, 10 * CREDIT)),
    ),
    max_size=30,
)


@given(STEPS)
def test_credits_add_up_whatever_families_do(steps):
    core, there = rig(), set()
    ledger = core.core._scheduler.claims.ledger
    issued = 0
    for step in steps:
        pid = step[1]
        if step[0] == "open" and pid not in there:
            parent = step[3] if step[3] != pid else ""
            endowment = step[2] if parent else step[2] or 0
            core.send(opened(endowment, pid, parent))
            issued += 0 if parent else endowment
            there.add(pid)
        elif step[0] == "close" and pid in there:
            core.send(CloseProcess(pid))
            there.discard(pid)
        elif step[0] == "endow" and pid in there:
            core.send(Endow(pid, step[2]))
            issued += step[2]
        assert core.core._scheduler.claims.violations() == []
        assert sum(ledger.account(each).balance for each in there) <= issued


def test_its_endowment_is_what_it_was_given():
    core = rig()
    core.send(opened(), opened(None, "b", "a"))
    assert account(core, "b").endowment == 125 * CREDIT
