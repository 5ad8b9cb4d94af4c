"""Programs of one and of several files: what goes in, and what comes out."""

from __future__ import annotations

import pytest

from inferlet.testing import FakeHost

# Values and signatures.


def test_arguments_in_value_out(run):
    program = """
    from dataclasses import dataclass

    @dataclass
    class Point:
        x: int
        y: int = 0

    async def main(p: Point, n: float = 2) -> list:
        return [p, n, str(type(n))]
    """
    assert run(program, {"p": {"x": 1}}) == [{"x": 1, "y": 0}, 2, "<class 'int'>"]


def test_describe_gives_the_signature(sandbox):
    program = """
    from typing import Literal

    async def main(prompt: str, style: Literal["short", "long"] = "short") -> str:
        '''Tell a story.'''
    """
    outcome = sandbox.call("describe", program)
    assert outcome.value == {
        "doc": "Tell a story.",
        "parameters": [
            {"name": "prompt", "schema": {"type": "string"}, "required": True},
            {
                "name": "style",
                "schema": {"enum": ["short", "long"], "type": "string"},
                "required": False,
                "default": "short",
            },
        ],
        "returns": {"type": "string"},
    }


def test_wrong_input_names_the_parameter_before_main_runs(sandbox):
    outcome = sandbox.call("run", "async def main(count: int):\n    print('ran')\n", {"count": "many"})
    assert outcome.value == {"code": "invalid_input", "message": '`count` has to be an integer; got "many"'}
    assert outcome.printed == ""


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("object()", "a value of type object is not JSON; use str,"),
        ("Context().append('x').generate()", "a value of type Stream is not JSON; write `await` before the call"),
        ("main()", "a value of type coroutine is not JSON; write `await` before the call"),
    ],
)
def test_a_result_that_is_not_json_is_an_error(fail, value, words):
    program = f"from inferlet import Context\n\nasync def main():\n    return {value}\n"
    error = fail(program, host=FakeHost(replies=["x"]))
    assert (error.code, error.traceback) == ("exception", "")
    assert error.message.startswith(f"TypeError: `main` (main.py, line 3) returned something that is not JSON: {words}")


# Programs of several files.


def test_packages_relative_imports_namespaces_and_data(run, tmp_path):
    (tmp_path / "pkg" / "data").mkdir(parents=True)
    (tmp_path / "pkg" / "data" / "words.txt").write_text("one two")
    (tmp_path / "top.bin").write_bytes(b"\x00\x01")
    files = {
        "main.py": "from pkg import deep\nimport space.inner\nfrom pathlib import Path\nimport pkgutil\n"
        "from importlib import resources\n"
        "async def main():\n"
        "    return [deep.answer(), space.inner.N, __file__, deep.__file__, deep.__package__,\n"
        "        (resources.files('pkg') / 'data' / 'words.txt').read_text(), open('pkg/data/words.txt').read(),\n"
        "        Path(__file__).parent.joinpath('top.bin').read_bytes().hex(),\n"
        "        pkgutil.get_data('pkg', 'data/words.txt').decode()]\n",
        "pkg/__init__.py": "",
        "pkg/deep.py": "from .other import N\nfrom . import other\ndef answer():\n    return N + other.N\n",
        "pkg/other.py": "N = 21\n",
        "space/inner.py": "N = 7\n",
    }
    words = "one two"
    assert run(files, folder=tmp_path) == [42, 7, "main.py", "pkg/deep.py", "pkg", words, words, "0001", words]


def test_an_entry_in_a_package(run):
    assert run(
        {"app/__init__.py": "", "app/start.py": "async def main():\n    return __name__\n"}, entry="app.start"
    ) == ("app.start")


def test_a_module_of_the_program_wins_over_one_of_the_standard_library(run):
    files = {"main.py": "import statistics\nasync def main():\n    return statistics.X\n", "statistics.py": "X = 1\n"}
    assert run(files) == 1


def test_a_byte_order_mark_at_the_start_of_a_file_is_skipped(run, fail):
    files = {"main.py": "\ufefffrom part import N\nasync def main():\n    return N\n", "part.py": "\ufeffN = 5\n"}
    assert run(files) == 5
    assert "    return 1 / 0\n" in fail("\ufeffasync def main():\n    return 1 / 0\n").traceback


def test_compiled_code_is_left_with_the_host_and_used_again(sandbox):
    files = {"main.py": "import part\nasync def main():\n    return part.N\n", "part.py": "N = 3\n"}
    first = sandbox.call("run", files)
    assert set(first.host.stored_code) == {"main.py", "part.py"}
    second = sandbox.call("run", files, code=first.host.stored_code)
    assert second.value == 3
    assert second.host.stored_code == {}
    third = sandbox.call("run", files, code={"main.py": "bm9uc2Vuc2U=", "part.py": "!"})
    assert third.value == 3
