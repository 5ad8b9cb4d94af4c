"""How long tests of programs take: a hundred small ones, as `pie test` runs them, from the command to its end.

Each test runs a program of its own in the sandbox within pytest, on the scripted model, and looks at what it did. The
programs differ, so nothing of one is there for the next.

    python benches/program_tests.py [--tests 100] [--rounds 5] [--json-out FILE]
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import BenchError
from options import bench_parser
from report import save

MAIN = """
from inferlet import Context, parse_calls, session, tool


@tool
def add(a: int, b: int) -> int:
    \"\"\"Add two numbers.\"\"\"
    return a + b


async def main(question: str, max_tokens: int = 64) -> str:
    \"\"\"Answer program number NUMBER's question with the help of a tool.\"\"\"
    with Context(tools=[add]) as ctx:
        ctx.user(question)
        reply = await ctx.generate(max_tokens=max_tokens)
        for call in parse_calls(reply):
            ctx.tool(await call.result([add]))
            reply = await ctx.generate(max_tokens=max_tokens)
        session.send(reply)
        return reply
"""
TEST = """
from pathlib import Path

import pytest

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'


@pytest.mark.budget(tokens=400, passes=120)
@pytest.mark.parametrize("number", range(NUM_TESTS))
def test_it_calls_the_tool(run, fake, number):
    fake.replies(CALL, f"It is 3, says {number}.")
    result = run(f"../programs/{number}", question="What is 1 + 2?")
    assert result.value == result.text == f"It is 3, says {number}."
    assert result.tool_calls[0].arguments == {"a": 1, "b": 2}
"""


def make_project(folder: Path, num_tests: int) -> None:
    """A project whose tests are as many, each of another program."""
    (folder / "tests").mkdir()
    (folder / "tests" / "test_programs.py").write_text(TEST.replace("NUM_TESTS", str(num_tests)))
    for number in range(num_tests):
        program = folder / "programs" / str(number)
        program.mkdir(parents=True)
        (program / "main.py").write_text(MAIN.replace("NUMBER", str(number)))


def measure(folder: Path, num_tests: int) -> tuple[float, float]:
    """Seconds of one run, and of processor time in it."""
    command = [sys.executable, "-m", "pie_cli", "test", str(folder), "--", "-q", "-p", "no:cacheprovider"]
    # As on any machine where modules are compiled once.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(folder / "pycache")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0 or f"{num_tests} passed" not in done.stdout:
        raise BenchError(f"the tests failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--tests", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pie-bench-tests-") as name:
        make_project(Path(name), args.tests)
        measure(Path(name), args.tests)  # builds the runtime where there is none
        rounds = [measure(Path(name), args.tests) for _ in range(args.rounds)]
    seconds, cpu = [round(each, 2) for each, _ in rounds], [round(each, 2) for _, each in rounds]
    results = {
        "num_tests": args.tests,
        "least_s": min(seconds),
        "median_s": statistics.median(seconds),
        "least_cpu_s": min(cpu),
        "cpu_ms_a_test": round(1000 * min(cpu) / args.tests, 1),
        "rounds_s": seconds,
    }
    figures = f"{results['least_s']} s at best, median {results['median_s']}, CPU {results['least_cpu_s']}"
    print(f"{args.tests} tests: {figures}")
    save(args.json_out, {"bench": "program_tests", "results": results})


if __name__ == "__main__":
    main()
