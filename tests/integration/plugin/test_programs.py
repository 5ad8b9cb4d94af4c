"""Programs under the plugin: what a test gives and sees, and how it fails."""

from __future__ import annotations

import pytest

from tests.integration.plugin.inner import QUIET, check


def test_a_program_answers_with_the_reply_that_is_given(project):
    tests = """
def test_it(run, fake):
    fake.replies("Hello there!")
    result = run(prompt="Hi")
    assert result.value == result.text == "Hello there!"
    assert result.stdout == "asking\\n"
    assert result.events[0] == ("started", {"program": "greeter", "version": "0.0.0"})
    assert "Hi" in result.prompts[0]
    assert result.replies == ["Hello there!"]
    assert "context.create" in result.calls
    assert 0 < result.passes < result.tokens
    assert result.pages == 1
"""
    check(project, tests)


def test_a_program_is_its_main_its_folder_or_its_source(project):
    tests = """
from main import main
from pie_testing import PieError

@pytest.mark.parametrize("program", [None, main, "..", "../main.py"])
def test_it(run, fake, program):
    fake.replies("Yes.")
    if program == "../main.py":  # by itself, without its helper
        with pytest.raises(PieError, match="helper"):
            run(program, prompt="Hi")
    else:
        assert run(program, {"prompt": "Hi"}).value == "Yes."

def test_source(run):
    assert run(\"\"\"
        async def main(n: int) -> int:
            return n + 1
    \"\"\", n=1).value == 2

def test_here(run):
    async def main() -> None: ...
    with pytest.raises(PieError, match="is in test_main.py, a test"):
        run(main)

def test_elsewhere(run):
    with pytest.raises(PieError, match="there is no"):
        run("../nothing")
"""
    check(project, tests, passed=7)


def test_a_failed_program_raises_with_its_own_traceback_and_result(project):
    tests = """
from pie_testing import PieError

def test_it(run, fake):
    with pytest.raises(PieError, match="no luck") as caught:
        run(prompt="fail")
    assert 'helper.py", line 3, in check' in caught.value.traceback
    assert caught.value.result.stdout == "asking\\n"
    assert caught.value.result.error.code == "exception"
    with pytest.raises(PieError, match="prompt"):
        run(prompt=7)
"""
    check(project, tests)


def test_a_failed_test_shows_what_the_program_did(project):
    tests = """
def test_raised(run, fake):
    run(prompt="fail")

def test_wrong(run, fake):
    fake.replies("Hello", "Bye")
    run(prompt="one")
    assert run(prompt="two").value == "Hello"
"""
    result = check(project, tests, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*PieError: ValueError: no luck",
            '*File "helper.py", line 3, in check',
            "*program greeter*",
            "stdout   asking",
            "error    exception: ValueError: no luck",
            "*program greeter (1 of 2)*",
            'message  "Hello"',
            "*program greeter (2 of 2)*",
            'message  "Bye"',
            'return   "Bye"',
            "*tokens, * forward passes, 1 KV pages",
        ]
    )
    failures, _, _ = result.stdout.str().partition("short test summary info")  # whole messages in it where CI is set
    assert failures.count("Traceback (most recent call last)") == 1
    assert "pie_testing/runs.py" not in failures


def test_budgets_hold_for_the_whole_test(project):
    tests = """
@pytest.mark.budget(tokens=40, passes=20, pages=1)
def test_enough(run, fake):
    fake.replies("Hello there!", "And again.")
    run(prompt="one"), run(prompt="two")

@pytest.mark.budget(tokens=7, passes=2, pages=0)
def test_too_little(run, fake):
    fake.replies("Hello there!")
    run(prompt="one")
"""
    result = check(project, tests, passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["over budget: * tokens, and the budget is 7; * passes, and the budget is 2; 1 pages, and the budget is 0"]
    )


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ("budget(token=3)", "`budget` has no `token`; did you mean `tokens`?"),
        ("budget(tokens='many')", "`tokens` of `budget` is 'many'; it must be a whole number"),
        ("budget", "`budget` takes `tokens`, `passes`, `pages` by name"),
        ("model", "`model` takes the name of a model"),
    ],
)
def test_a_wrong_mark_is_refused_before_anything_runs(project, mark, says):
    (project.path / "test_mark.py").write_text(f"import pytest\n@pytest.mark.{mark}\ndef test_it(): ...\n")
    result = project.runpytest_inprocess(*QUIET)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in result.stderr.str()


def test_tests_import_the_modules_of_their_own_program(pytester):
    for number in ("one", "two"):
        folder = pytester.path / number
        (folder / "tests").mkdir(parents=True)
        (folder / "pie.toml").write_text(f'[program]\nname = "{number}"\n')
        (folder / "main.py").write_text(f"async def main() -> str:\n    return '{number}'\n")
        (folder / "tests" / "test_main.py").write_text(
            "from main import main\n"
            f"def test_it(run):\n    import main as module\n    assert run(main).value == '{number}'\n"
            f"    assert module.main is main\n    assert run().program == '{number}'\n"
        )
    result = pytester.runpytest_inprocess(*QUIET, "--import-mode=importlib")
    result.assert_outcomes(passed=2)


def test_a_project_without_programs_is_left_alone(pytester):
    pytester.makepyfile("def test_it(): ...\ndef test_run(run): ...\n")
    result = pytester.runpytest_inprocess(*QUIET)
    result.assert_outcomes(passed=2)


def test_junit_holds_what_programs_took(project):
    tests = "def test_it(run, fake):\n    fake.replies('Hello')\n    run(prompt='Hi')\n"
    check(project, tests, "--junitxml=report.xml")
    assert 'name="pie_tokens"' in (project.path / "report.xml").read_text()


def test_secrets_are_those_that_the_manifest_names(project):
    (project.path / "pie.toml").write_text('[program]\nname = "p"\nsecrets = ["KEY"]\n')
    project.makepyfile(
        main="from inferlet import runtime\nasync def main() -> int:\n    return len(runtime.secret('KEY'))\n"
    )
    tests = """
from pie_testing import PieError

def test_it(run):
    assert run(secrets={"KEY": "abcd", "OTHER": "x"}).value == 4
    with pytest.raises(PieError, match="needs the secret `KEY`, which is not set"):
        run()
"""
    check(project, tests)


CHILDREN = '''
WORKER = """
from inferlet import session
async def main(n: int) -> int:
    session.send(n)
    return 2 * n
"""
BOSS = """
from inferlet import runtime
async def main() -> list:
    child = await runtime.launch("worker", n=2)
    return [[message async for message in child.messages()], await child.result()]
"""
'''


def test_programs_launch_those_that_a_test_gives_them(project):
    tests = """
from pie_testing import PieError

def test_source(run):
    assert run(BOSS, programs={"worker": WORKER}).value == [[2], 4]

def test_folder(run):
    assert run("../boss", programs={"worker": "../worker"}).value == [[2], 4]

async def test_start(start):
    async with start(BOSS, programs={"worker": WORKER}) as process:
        assert (await process.result()).value == [[2], 4]

def test_none(run):
    with pytest.raises(PieError, match="may not launch `worker`"):
        run(BOSS)

def test_not_given(run):
    with pytest.raises(PieError, match="no program `worker`") as caught:
        run("../boss")
    assert "programs=" in str(caught.value)
"""
    sources: dict[str, str] = {}
    exec(CHILDREN, sources)
    for name in ("boss", "worker"):
        folder = project.mkdir(name)
        (folder / "main.py").write_text(sources[name.upper()])
        more = 'launches = ["worker"]\n' if name == "boss" else ""
        (folder / "pie.toml").write_text(f'[program]\nname = "{name}"\n{more}')
    check(project, CHILDREN + tests, "-o", "asyncio_mode=auto", passed=5)
