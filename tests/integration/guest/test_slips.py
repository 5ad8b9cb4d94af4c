"""Slips that everybody makes once: what Python says of them, and the hint that goes with it."""

from __future__ import annotations

import textwrap

import pytest

from inferlet.testing import FakeHost


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("ctx.generate(max_tokens=4).strip()", "`await` it first"),
        ('"a" + ctx.generate(max_tokens=4)', "`await` it first"),
        ("helper().strip()", "`await` it first"),
        ("for chunk in ctx.generate(max_tokens=4): print(chunk)", "write `async for chunk in ctx.generate(…)`"),
        ("await ctx.generate(top_p=0.9)", "`ctx.generate(Sampler(top_p=…))`"),
        ("await ctx.generate(max_token=9)", ""),
        ("asyncio.run(helper())", "`main` runs on an event loop already: `await` it"),
        ("Sampler.greedy()", "write `from inferlet import Sampler`"),
        ("Smapler.greedy()", ""),
        ("ctx.generate(max_tokens=4).no_such_thing", ""),
    ],
)
def test_a_slip_has_a_hint(body, hint, fail):
    source = f"""
    import asyncio
    from inferlet import Context

    async def helper() -> str:
        return ""

    async def main() -> None:
        ctx = Context()
        ctx.user("Hi")
        {body}
    """
    error = fail(textwrap.dedent(source), host=FakeHost(replies=["some text"]))
    assert error.code == "exception"
    assert hint in error.hint
    assert bool(hint) == bool(error.hint)


def test_a_gather_names_every_branch_that_failed(fail):
    error = fail(
        textwrap.dedent("""
        import asyncio

        async def check(n):
            return 1 // n

        async def main() -> None:
            await asyncio.gather(check(1), check(0), asyncio.create_task(check("x"), name="third"))
        """)
    )
    assert error.traceback.splitlines()[-3:] == [
        "TypeError: unsupported operand type(s) for //: 'int' and 'str'",
        "in branch 3 of 3 of a gather: check (third)",
        "branch 2 has failed, too: check: ZeroDivisionError: division by zero, main.py:5",
    ]
