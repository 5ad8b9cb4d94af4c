"""Programs that launch others, against the SDK's fake host."""

from __future__ import annotations

import asyncio
import math

import pytest

from inferlet import Child, ChildFailed, InvalidInput, NotFound, runtime
from tests.unit.sdk_runs import host, run


def double(n: int) -> int:
    return 2 * n


def counts(up_to: int):
    yield from range(up_to)
    return "done"


def fails() -> None:
    raise ValueError("no")


CHILDREN = {"double": double, "counts": counts, "fails": fails}


def test_the_value_of_a_child_is_the_value_of_its_main():
    async def main() -> list:
        child = await runtime.launch("double", n=4)
        return [child.pid, child.program, await child.result(), await child.result()]

    assert run(main, children=CHILDREN) == ["child-0001", "double", 8, 8]


def test_input_is_a_dict_or_keywords_and_credits_go_along():
    async def main() -> list:
        await runtime.launch("double", {"n": 1})
        await runtime.launch("double", {"n": 1}, n=2, endowment=5)
        return host().launches

    assert run(main, children=CHILDREN) == [["double", {"n": 1}, None], ["double", {"n": 2}, 5.0]]


def test_messages_come_in_order_and_stay_for_who_asks_for_the_result_first():
    async def main() -> list:
        child = await runtime.launch("counts", up_to=3)
        return [await child.result(), [message async for message in child.messages()]]

    assert run(main, children=CHILDREN) == ["done", [0, 1, 2]]


def test_several_tasks_can_wait_for_the_same_child():
    async def main() -> list:
        child = await runtime.launch("counts", up_to=2)

        async def listen() -> list:
            return [message async for message in child.messages()]

        return await asyncio.gather(child.result(), listen(), child.result())

    assert run(main, children=CHILDREN) == ["done", [0, 1], "done"]


def test_a_failed_child_raises_its_error_also_behind_its_messages():
    async def main() -> list:
        child = await runtime.launch("fails")
        with pytest.raises(ChildFailed, match=r"child `fails` \(child-0001\) failed: no") as caught:
            await child.result()
        with pytest.raises(ChildFailed):
            [message async for message in child.messages()]
        error = caught.value
        return [error.code, error.failure.code, error.failure.message, error.pid]

    assert run(main, children=CHILDREN) == ["child_failed", "exception", "no", "child-0001"]


def test_the_traceback_of_a_child_is_shown_with_the_error():
    from inferlet.errors import Failure

    error = ChildFailed("worker", "p1", Failure("exception", "no", traceback="  File main.py, line 3\n"))
    assert error.__notes__ == ["in the child:\n  File main.py, line 3"]


def test_messages_go_to_it_until_it_has_ended():
    async def main() -> list:
        child = await runtime.launch("double", n=1)
        child.send({"more": [1]})
        await child.result()
        child.send("too late")
        return host().told

    assert run(main, children=CHILDREN) == [["child-0001", {"more": [1]}]]


def test_the_end_of_a_block_ends_it():
    async def main() -> list:
        async with await runtime.launch("counts", up_to=2) as child:
            pass
        with pytest.raises(ChildFailed) as caught:
            await child.result()
        async with await runtime.launch("double", n=1) as ended:
            await ended.result()
        return [host().terminated, caught.value.failure.code, repr(child)]

    assert run(main, children=CHILDREN) == [["child-0001"], "cancelled", "<Child counts child-0001 (ended)>"]


def test_who_is_cancelled_while_it_waits_lets_others_wait_on():
    async def main() -> list:
        child = await runtime.launch("double", n=1)
        first = asyncio.create_task(child.result())
        second = asyncio.create_task(child.result())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        child.terminate()
        done = await asyncio.gather(first, second, return_exceptions=True)
        return [type(each).__name__ for each in done]

    assert run(main, children=CHILDREN) == ["CancelledError", "ChildFailed"]


@pytest.mark.parametrize(
    ("program", "input", "endowment", "message"),
    [
        (5, None, None, "program has to be a text; got int"),
        ("double", [1], None, "input has to be a dict of the arguments of `main`; got list"),
        ("double", {1: 2}, None, "a name in input has to be a text; got int"),
        ("double", {"n": object()}, None, "the input of a child: a value of type object is not JSON"),
        ("double", {"n": math.nan}, None, "the input of a child: Out of range float values"),
        ("double", None, "much", "endowment has to be a number; got 'much'"),
        ("double", None, math.inf, "endowment has to be a number; got inf"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_launched(program, input, endowment, message):
    async def main() -> list:
        with pytest.raises(InvalidInput, match=message):
            await runtime.launch(program, input, endowment=endowment)
        return host().launches

    assert run(main, children=CHILDREN) == []


def test_what_json_does_not_have_is_not_sent():
    async def main() -> list:
        child = await runtime.launch("double", n=1)
        with pytest.raises(InvalidInput, match=r"child\.send: a value of type object is not JSON"):
            child.send(object())
        return host().told

    assert run(main, children=CHILDREN) == []


def test_an_unknown_program_says_how_a_test_gives_it():
    async def main() -> None:
        with pytest.raises(NotFound, match="no program `nobody`") as caught:
            await runtime.launch("nobody")
        assert "children=" in caught.value.hint

    run(main, children=CHILDREN)


def test_a_child_is_made_by_a_launch():
    async def main() -> bool:
        return isinstance(await runtime.launch("double", n=1), Child)

    assert run(main, children=CHILDREN) is True
