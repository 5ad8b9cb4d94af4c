"""Golden outputs and recordings."""

from __future__ import annotations

import json
from pathlib import Path

from pie_client import pack
from pie_engine.config import HostSection, ModelSection
from pie_engine.embedded import Embedded
from pie_engine.protocol.recording import RecordingWriter
from tests.integration.plugin.inner import MAIN, QUIET, check


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


def test_two_tests_do_not_share_a_golden_file(project):
    tests = """
class TestBrief:
    def test_greeting(self, golden):
        golden("Hi!")

class TestPolite:
    def test_greeting(self, golden):
        golden("Good day!")
"""
    written = check(project, tests, "--pie-update", passed=1, failed=1)
    written.stdout.fnmatch_lines(["*greeting.txt is the golden file of *::TestBrief::test_greeting already"])
    named = tests.replace('"Good day!")', '"Good day!", "polite")')
    check(project, named, "--pie-update", passed=2)
    check(project, named, passed=2)


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
    run = (*QUIET, f"--pie-replay={file}", "-v")
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


def test_one_of_the_file_is_one_of_its_folder(project):
    (project.path / "main.py").write_text("async def main() -> int:\n    print(1)\n    return 1\n")
    file = project.path / "it.rec"
    record(project.path / "main.py", file)
    project.runpytest_inprocess(*QUIET, f"--pie-replay={file}").assert_outcomes(passed=1)
