"""The pytest plugin in projects of its own, run by pytest within pytest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pie_testing.embedded  # once for all inner runs, which forget what they import  # noqa: F401
from pie_client import pack
from pie_engine.config import HostSection, ModelSection
from pie_engine.embedded import Embedded
from pie_engine.protocol.recording import RecordingWriter

MAIN = """
from inferlet import Context, session
from helper import check

async def main(prompt: str, max_tokens: int = 64) -> str:
    \"\"\"Answer.\"\"\"
    ctx = Context()
    ctx.user(prompt)
    print("asking")
    check(prompt)
    async for chunk in ctx.generate(max_tokens=max_tokens):
        session.send(chunk.text)
    return ctx.last_text
"""
HELPER = """
def check(prompt):
    if prompt == "fail":
        raise ValueError("no luck")
"""
TALK = """
from inferlet import session

async def main() -> list:
    session.send("name?")
    said = [await session.receive()]
    async for message in session:
        said.append(message)
    return said
"""

QUIET = ("-p", "no:randomly", "-o", "asyncio_default_fixture_loop_scope=function")
"""What other plugins of these tests' environment would do or say."""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A program with a module beside it."""
    pytester.makefile(".toml", pie='[program]\nname = "greeter"\n')
    pytester.makepyfile(main=MAIN, helper=HELPER)
    return pytester


def check(project: pytest.Pytester, tests: str, *args: str, **outcomes: int) -> pytest.RunResult:
    """Run `tests` of the program with the plugin."""
    folder = project.path / "tests"
    folder.mkdir(exist_ok=True)
    (folder / "test_main.py").write_text("import pytest\n" + tests)
    result = project.runpytest_inprocess("-p", "pie_testing.plugin", *QUIET, *args)
    result.assert_outcomes(**(outcomes or {"passed": 1}))
    return result


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
    result = project.runpytest_inprocess("-p", "pie_testing.plugin", *QUIET)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in result.stderr.str()


def test_golden_outputs_are_written_when_asked_and_compared_otherwise(project):
    tests = """
def test_greeting(run, fake, golden):
    fake.replies("Hello there!")
    result = run(prompt="Hi")
    golden(result)
    golden({"b": [1], "a": result.value}, "value")
"""
    missing = check(project, tests, failed=1)
    missing.stdout.fnmatch_lines(["*there is no golden file *greeting.txt", "*--pie-update*"])
    written = check(project, tests, "--pie-update")
    written.stdout.fnmatch_lines(["updated *greeting.txt", "updated *greeting.value.json"])
    check(project, tests)
    folder = project.path / "tests" / "golden"
    assert (folder / "greeting.value.json").read_text() == '{\n  "a": "Hello there!",\n  "b": [\n    1\n  ]\n}\n'
    changed = check(project, tests.replace("Hello there!", "Hello you!"), failed=1)
    changed.stdout.fnmatch_lines(['*-message: "Hello there!"', '*+message: "Hello you!"', "*pie test --update*"])
    assert "updated" not in check(project, tests, "--pie-update").stdout.str()


def test_clients_talk_to_programs(project):
    project.makepyfile(main=TALK)
    tests = """
from pie_testing import PieError

def test_inbox(run):
    assert run(inbox=["Ann", "b", None]).value == ["Ann", "b"]

def test_answer(run):
    source = '''
        from inferlet import session
        async def main() -> list:
            said = []
            for number in range(3):
                session.send(number)
                said.append(await session.receive())
            return said
    '''
    assert run(source, answer=lambda number: {"to": number}).value == [{"to": 0}, {"to": 1}, {"to": 2}]

def test_nobody_answers(run):
    with pytest.raises(PieError, match="waits for a message, and nobody sends one") as caught:
        run()
    assert caught.value.result.messages == ["name?"]

async def test_while_it_runs(start):
    async with start() as process:
        async for message in process.messages():
            assert message == "name?"
            break
        await process.send("Ann")
        await process.send(None)
        assert (await process.result()).value == ["Ann"]

async def test_left_running(start):
    async with start() as process:
        assert (await process.recv()).kind == "started"

async def test_ended(start):
    process = start()
    await process.terminate()
    with pytest.raises(PieError, match="terminated"):
        await process.result()
"""
    check(project, tests, passed=6)


def test_the_fake_model_fails_and_dawdles_as_told(project):
    tests = """
import time
from pie_testing import PieError

@pytest.mark.parametrize("code", ["core_lost", "out_of_pages", "internal"])
def test_failures(run, fake, code):
    fake.replies("one two three", "four")
    fake.fail(code, at_pass=2)
    with pytest.raises(PieError) as caught:
        run(prompt="Hi")
    assert caught.value.result.error.code in (code, "exception")
    assert code == "core_lost" or "scripted failure" in str(caught.value)

def test_slow(run, fake):
    fake.replies("one two three")
    fake.slow(pass_ms=30)
    began = time.monotonic()
    result = run(prompt="Hi")
    assert time.monotonic() - began > 0.03 * result.passes

def test_few_pages(run, fake):
    fake.replies("one " * 100)
    fake.limit(pages=2)
    with pytest.raises(PieError, match="2"):
        run(prompt="Hi", max_tokens=200)

def test_babble(run, fake):
    fake.babble()
    assert len(run(prompt="Hi", max_tokens=9).text) > 9

def test_nothing_to_say(run):
    with pytest.raises(PieError, match="the fake model has no reply for this prompt: it has none"):
        run(prompt="Hi")

def test_more_later(run, fake):
    fake.replies("one")
    assert run(prompt="Hi").value == "one"
    fake.replies("two")
    assert run(prompt="Hi").value == "two"

def test_by_match(run, fake):
    fake.reply(["It is ", {"so": 3, "not": 1}, "."], match="[Ii]s it")
    assert run(prompt="Is it?").value == "It is so."
    with pytest.raises(PieError, match="no regular expression"):
        fake.reply("x", match="(")
    with pytest.raises(PieError, match="a reply is a text"):
        fake.replies(7)
"""
    check(project, tests, passed=9)


def test_what_one_test_saves_the_next_one_does_not_find(project):
    project.makepyfile(
        main="""
from inferlet import Context
async def main(save: bool) -> list:
    if save:
        await Context().append("x").save("notes")
    return [each.name for each in Context.list()]
"""
    )
    tests = """
def test_first(run):
    assert run(save=True).value == ["notes"]
    assert run(save=False).value == ["notes"]

def test_second(run):
    assert run(save=False).value == []
"""
    check(project, tests, passed=2)


def test_tool_calls_are_what_the_model_asks_for(project):
    project.makepyfile(
        main="""
from inferlet import Context, parse_calls, tool

@tool
def add(a: int, b: int) -> int:
    return a + b

async def main() -> str:
    ctx = Context(tools=[add])
    ctx.user("?")
    for call in parse_calls(await ctx.generate()):
        ctx.tool(await call.result([add]))
    return await ctx.generate()
"""
    )
    tests = """
from pie_testing import ToolCall

def test_it(run, fake):
    fake.replies('<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>', "It is 3.")
    result = run()
    assert result.tool_calls == [ToolCall("add", {"a": 1, "b": 2})]
    assert "3" in result.prompts[1]
"""
    check(project, tests)


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
    result = pytester.runpytest_inprocess("-p", "pie_testing.plugin", *QUIET, "--import-mode=importlib")
    result.assert_outcomes(passed=2)


def test_a_project_without_programs_is_left_alone(pytester):
    pytester.makepyfile("def test_it(): ...\ndef test_run(run): ...\n")
    result = pytester.runpytest_inprocess("-p", "pie_testing.plugin", *QUIET)
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


def record(folder: Path, file: Path, **arguments: object) -> None:
    """As `pie run --record` does."""
    with Embedded(HostSection(warm_instances=0)) as engine, file.open("wb") as out:
        engine.load(ModelSection(driver="fake", name="fake", num_pages=64, offload_memory_mb=1))
        process = engine.launch(pack(folder), arguments, trace=("record",))
        process.wait(30)
        writer = RecordingWriter(out)
        for event in process.events:
            if event.kind == "trace":
                writer.take(json.loads(event.data))


def test_recordings_are_tests(project):
    folder, file = project.path, project.path / "greeting.pierec"
    record(folder, file, prompt="Hi", max_tokens=8)
    run = ("-p", "pie_testing.plugin", *QUIET, f"--pie-replay={file}", "-v")
    result = project.runpytest_inprocess(*run)
    result.assert_outcomes(passed=1)
    project.makepyfile(main=MAIN.replace('print("asking")', 'print("asking again")'))
    changed = project.runpytest_inprocess(*run)
    changed.assert_outcomes(failed=1)
    changed.stdout.fnmatch_lines(
        ["*greeting.pierec: the program departs from what was recorded", "*at call *", "*program *", "*recording *"]
    )
    (folder / "pie.toml").write_text('[program]\nname = "other"\n')
    other = project.runpytest_inprocess(*run)
    other.assert_outcomes(failed=1)
    other.stdout.fnmatch_lines(["*is a recording of `greeter`; programs here: `other`"])
    file.write_bytes(b"nothing")
    project.runpytest_inprocess(*run).assert_outcomes(failed=1)


def test_what_models_draw_is_the_same_in_every_run(project):
    project.makepyfile(
        main="""
from inferlet import Context, Sampler
async def main() -> str:
    ctx = Context()
    ctx.user("Throw.")
    return await ctx.generate(Sampler.temperature(1.0), max_tokens=20)
"""
    )
    tests = """
def test_it(run, fake, golden):
    fake.babble()
    first, second = run().value, run().value
    assert first != second
    golden(first + second)
"""
    check(project, tests, "--pie-update")
    check(project, tests)
