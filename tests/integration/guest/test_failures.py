"""What the user is told when a program cannot start, raises or exits."""

from __future__ import annotations

import pytest

# Programs that cannot start.


def test_a_syntax_error_shows_the_line_and_the_caret(fail):
    error = fail("async def main() -> None:\n    x = = 3\n")
    assert (error.code, error.message) == ("invalid_program", "SyntaxError in main.py, line 2: invalid syntax")
    assert error.traceback == '  File "main.py", line 2\n    x = = 3\n        ^\nSyntaxError: invalid syntax\n'


@pytest.mark.parametrize(
    ("program", "message", "hint"),
    [
        ("async def mian(): ...", "main.py has no function `main`", "did you mean `mian`?"),
        ("x = 1", "main.py has no function `main`", "add `async def main(…):`"),
        ("def main(): ...", "`main` in main.py is not async", "write `async def main(…):`"),
        ("main = 3", "`main` in main.py is of type int, not a function", "write `async def main(…):`"),
        ("import numpy as np", "numpy needs native code, which a sandbox cannot load", "math, statistics"),
        ("import ssl", "the module ssl does not exist in a sandbox", "no network"),
        ("import requests", "requests cannot be imported: a sandbox has no network of its own", "session"),
        ("import multiprocessing.pool", "the module multiprocessing.pool does not exist in a sandbox", "use asyncio"),
        ("from inferlet import Contxt", "ImportError: cannot import name 'Contxt' from 'inferlet'", "`Context`?"),
        ("from json import dump_s", "ImportError: cannot import name 'dump_s' from 'json'", "`dumps`?"),
        ("import hepler", "ModuleNotFoundError: No module named 'hepler'", "did you mean `helper`?"),
        ("from helper import y", "ImportError: cannot import name 'y' from 'helper' (helper.py)", ""),
        ("async def main(x: complex): ...", "parameter `x` of `main`: complex cannot come from JSON", "dataclass"),
    ],
)
def test_programs_that_cannot_start_say_why(fail, program, message, hint):
    error = fail({"main.py": program, "helper.py": "x = 1\n"})
    assert (error.code, error.message) == ("invalid_program", message)
    assert hint in error.hint


def test_an_import_while_main_runs_has_the_hint_too(fail):
    error = fail("async def main():\n    import numpy\n")
    assert (error.code, error.message) == ("exception", "ModuleNotFoundError: No module named 'numpy'")
    assert "math, statistics" in error.hint


def test_a_file_of_the_runtime_is_in_no_message_and_no_traceback(fail):
    error = fail("async def main():\n    from inferlet import Contxt\n")
    assert error.message.startswith("ImportError: cannot import name 'Contxt' from 'inferlet'")
    assert "__init__.py" not in error.message + error.traceback
    assert error.hint == "did you mean `Context`?"


def test_a_missing_entry_names_what_there_is(fail):
    error = fail({"start.py": "async def main(): ...", "b.py": ""})
    assert error.message == "there is no entry module `main`"
    assert error.hint == "the program has: b, start; set `entry` in pie.toml"


def test_an_import_may_fail_where_the_program_expects_it(run):
    program = """
    try:
        import numpy
    except ImportError:
        numpy = None

    async def main():
        return numpy
    """
    assert run(program) is None


# Exceptions.


def test_a_traceback_has_the_users_frames_only(fail):
    files = {
        "main.py": "from helper import fail\n\nasync def main():\n    fail(3)\n",
        "helper.py": "def fail(n):\n    return {}[n]  # here\n",
    }
    error = fail(files)
    assert (error.code, error.message) == ("exception", "KeyError: 3")
    assert error.traceback == (
        "Traceback (most recent call last):\n"
        '  File "main.py", line 4, in main\n    fail(3)\n    ~~~~^^^\n'
        '  File "helper.py", line 2, in fail\n    return {}[n]  # here\n           ~~^^^\n'
        "KeyError: 3\n"
    )


def test_an_error_of_the_engine_keeps_its_code_and_points_at_the_users_line(fail):
    error = fail("from inferlet import Context\n\nasync def main():\n    Context('nope')\n")
    assert (error.code, error.message) == ("not_found", "no model `nope` is loaded; there is: fake")
    assert 'File "main.py", line 4, in main' in error.traceback
    assert "inferlet/" not in error.traceback


def test_groups_and_causes_are_trimmed_too(fail):
    program = """
    import asyncio

    async def child():
        try:
            1 / 0
        except ZeroDivisionError as error:
            raise ValueError("worse") from error

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
    """
    error = fail(program)
    assert "ZeroDivisionError: division by zero" in error.traceback
    assert "ValueError: worse" in error.traceback
    assert "1 / 0" in error.traceback
    assert "_loop.py" not in error.traceback
    assert "base_events" not in error.traceback


def test_deep_recursion_is_an_exception(fail):
    error = fail("def f(n):\n    return f(n + 1)\n\nasync def main():\n    f(0)\n")
    assert error.message.startswith("RecursionError: maximum recursion depth exceeded")
    assert len(error.traceback) < 2000


@pytest.mark.parametrize("status", ["", "0", "None"])
def test_exit_without_a_status_is_a_return(run, status):
    assert run(f"import sys\nasync def main():\n    sys.exit({status})\n    return 5\n") is None


@pytest.mark.parametrize(
    ("status", "message"),
    [("3", "the program left with exit status 3"), ("'no such city'", "no such city")],
)
@pytest.mark.parametrize("place", ["main", "a task"])
def test_exit_with_a_status_or_a_text_is_a_failure_without_a_traceback(fail, place, status, message):
    program = f"""
    import asyncio, sys

    async def leave():
        sys.exit({status})

    async def main():
        await {"leave()" if place == "main" else "asyncio.create_task(leave())"}
    """
    error = fail(program)
    assert (error.code, error.message, error.traceback) == ("exception", message, "")


def test_exit_before_main_is_no_program(fail):
    error = fail("import sys\nsys.exit(3)\n")
    assert error.code == "invalid_program"
    assert error.message == "main.py left before `main` could run: the program left with exit status 3"
    assert (error.hint, error.traceback) == ("call `sys.exit` in `main`", "")
