"""The guest runtime in a real sandbox, over the SDK's fake host: no host process, no model."""

from __future__ import annotations

import ast
import dataclasses
import enum
import json
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wasmtime import Store, WasiConfig
from wasmtime.component import Component, Linker, Record, Variant

from inferlet import errors
from inferlet._runtime import stdlib
from inferlet.testing import FakeHost
from pie_engine.host.engine import new_engine
from pie_engine.host.runtime import load_runtime

CACHE = Path(__file__).parents[2] / "build" / "test-cache"
INTERFACES = {
    "futures": ["wait-any", "forget"],
    "model": ["list", "adapters", "describe", "encode", "decode", "render-chat"],
    "context": [
        *[
            "create",
            "append",
            "append-packed",
            "append-text",
            "encode",
            "flush",
            "finish-flush",
            "fork",
            "save",
            "finish-save",
            "open",
            "delete",
            "list-saved",
        ],
        *["place", "truncate", "drop", "slide", "release", "length", "tokens"],
    ],
    "generate": ["start", "next", "stop", "rewind", "inject", "draft", "pipe", "search", "finish-search"],
    "forward": ["start", "finish"],
    "matcher": ["create", "fork", "advance", "rollback", "look", "finish-look", "release"],
    "session": ["send", "receive", "finish-receive", "drain", "finish-drain"],
    "runtime": ["process-id", "program", "version", "store-code"],
    "log": ["emit", "write"],
}
TAGGED = {
    "model.describe",
    "context.open",
    "generate.next",
    "generate.stop",
    "generate.finish-search",
    "forward.finish",
    "matcher.finish-look",
}
"""Functions whose value and error are both records, which wasmtime-py wants told apart."""


def to_wire(value: Any) -> Any:
    """A record of the fake as wasmtime-py wants it."""
    if isinstance(value, enum.Enum):
        return value.name.lower().replace("_", "-")
    if isinstance(value, SimpleNamespace):
        record = Record()
        record.__dict__.update({key.replace("_", "-"): to_wire(item) for key, item in vars(value).items()})
        return record
    return [to_wire(item) for item in value] if isinstance(value, list) else value


def from_wire(value: Any) -> Any:
    """A record of wasmtime-py as the fake wants it."""
    if isinstance(value, Record):
        return SimpleNamespace(**{key.replace("-", "_"): from_wire(item) for key, item in vars(value).items()})
    return value


def error_record(error: errors.PieError) -> Record:
    record = Record()
    record.__dict__.update(code=error.code.replace("_", "-"), message=error.message, retry=error.retry)
    return record


@dataclasses.dataclass
class Outcome:
    """What one instance did."""

    is_ok: bool
    value: Any
    """The result, or the error, from JSON."""
    host: FakeHost
    run_ms: float

    @property
    def printed(self) -> str:
        return "".join(text for _, text in self.host.printed)


class Sandbox:
    """The runtime component with the fake host linked in."""

    def __init__(self) -> None:
        self.engine = new_engine()
        self.component: Component = load_runtime(self.engine, CACHE, lambda text, fraction: None)
        self.host = FakeHost()
        self.linker = Linker(self.engine)
        self.linker.add_wasip2()
        with self.linker.root() as root:
            for interface, functions in INTERFACES.items():
                with root.add_instance(f"pie:core/{interface}@0.1.0") as instance:
                    for function in functions:
                        instance.add_func(function, self._imported(interface, function))

    def _imported(self, interface: str, function: str) -> Any:
        name, is_tagged = function.replace("-", "_"), f"{interface}.{function}" in TAGGED

        def call(store: Any, *args: Any) -> Any:
            try:
                arguments = [self._argument(interface, from_wire(arg)) for arg in args]
                value = to_wire(getattr(getattr(self.host, interface), name)(*arguments))
                return Variant("ok", value) if is_tagged else value
            except errors.PieError as error:
                return Variant("err", error_record(error)) if is_tagged else error_record(error)

        return call

    def _argument(self, interface: str, value: Any) -> Any:
        if interface == "matcher" and isinstance(value, SimpleNamespace):
            value.kind = self.host.generate.GrammarKind[value.kind.upper().replace("-", "_")]
        enums = {"log": {**self.host.log.Level.__members__, **self.host.log.Output.__members__}}
        return enums.get(interface, {}).get(value.upper(), value) if isinstance(value, str) else value

    def instance(self, folder: Path | None) -> tuple[Store, dict[str, Any]]:
        store, wasi = Store(self.engine), WasiConfig()
        if folder is not None:
            wasi.preopen_dir(str(folder), "/", fs_mutable=False)
        store.set_wasi(wasi)
        store.set_epoch_deadline(10**9)
        instance = self.linker.instantiate(store, self.component)
        program = instance.get_export_index(store, "pie:core/program@0.1.0")
        names = ("describe", "run")
        return store, {n: instance.get_func(store, instance.get_export_index(store, n, program)) for n in names}

    def call(
        self, function: str, program: dict[str, str] | str, arguments: Any = None, *, folder: Path | None = None,
        host: FakeHost | None = None, code: dict[str, str] | None = None, entry: str = "main", is_warm: bool = False,
    ) -> Outcome:  # fmt: skip
        """Call an export of a fresh instance for a program: one `main.py`, or files by path."""
        files = {"main.py": textwrap.dedent(program)} if isinstance(program, str) else program
        bundle = {"name": "test", "version": "1.0.0", "entry": entry, "files": files, "code": code or {}}
        store, exports = self.instance(folder)
        if is_warm:
            assert exports["describe"](store, "").payload == ""
        self.host = host or FakeHost()
        texts = [json.dumps(bundle)] + ([json.dumps(arguments or {})] if function == "run" else [])
        started = time.perf_counter()
        result = exports[function](store, *texts)
        run_ms = (time.perf_counter() - started) * 1e3
        return Outcome(result.tag == "ok", json.loads(result.payload), self.host, run_ms)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox()


@pytest.fixture
def run(sandbox):
    """The value of a program; fails when it fails."""

    def run_(program, arguments=None, **kwargs):
        outcome = sandbox.call("run", program, arguments, **kwargs)
        assert outcome.is_ok, outcome.value
        return outcome.value

    return run_


@pytest.fixture
def fail(sandbox):
    """The error of a program; fails when it does not fail."""

    def fail_(program, arguments=None, **kwargs):
        outcome = sandbox.call("run", program, arguments, **kwargs)
        assert not outcome.is_ok, outcome.value
        return SimpleNamespace(**{"hint": "", "traceback": "", **outcome.value})

    return fail_


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
        ("main = 3", "`main` in main.py is of type int, not a function", ""),
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


# Time, randomness, waiting.

FRESH = """
import logging, random, secrets, tempfile, time, uuid

async def main():
    return [random.random(), random.getrandbits(64), secrets.token_hex(8), str(uuid.uuid4()), str(uuid.uuid1()),
            random.SystemRandom().random(), next(tempfile._get_candidate_names()), random.Random().random()]
"""


def test_two_runs_share_no_random_numbers(run):
    first, second = run(FRESH), run(FRESH)
    assert [a for a, b in zip(first, second, strict=True) if a == b] == []


def test_a_warm_instance_is_as_fresh_as_any_other(sandbox):
    program = """
    import linecache, random, sys

    async def main():
        return [random.random(), [name for name in ("main", "part") if name in sys.modules], len(sys.meta_path),
                list(linecache.cache)]
    """
    warm = [sandbox.call("run", program, is_warm=True).value for _ in range(2)]
    cold = sandbox.call("run", program).value
    assert warm[0][0] != warm[1][0]
    assert warm[0][1:] == warm[1][1:] == cold[1:] == [["main"], cold[2], ["main.py"]]


def test_clocks_are_right(run):
    program = """
    import datetime, logging, time

    async def main():
        record = logging.makeLogRecord({})
        return [time.time(), datetime.datetime.now(datetime.timezone.utc).timestamp(), record.relativeCreated]
    """
    seconds, stamp, relative_ms = run(program)
    assert abs(seconds - time.time()) < 5
    assert abs(stamp - time.time()) < 5
    assert 0 <= relative_ms < 60_000


def test_blocking_waits_go_to_the_host(sandbox):
    program = """
    import select, threading, time

    async def main():
        started = time.monotonic()
        time.sleep(0.05)
        select.select([], [], [], 0.05)
        lock = threading.Lock()
        with lock:
            assert not lock.acquire(timeout=0.05)
        assert not threading.Event().wait(0.05)
        return time.monotonic() - started
    """
    outcome = sandbox.call("run", program)
    assert 0.2 <= outcome.value < 3
    assert outcome.host.calls["futures.wait_any"] >= 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("threading.Lock().acquire() and lock.acquire() and lock.acquire()", "would wait for ever"),
        ("threading.Event().wait()", "would wait for ever"),
        ("queue.Queue().get()", "would wait for ever"),
        ("queue.SimpleQueue().get()", "would wait for ever"),
        ("threading.Thread(target=print).start()", "a sandbox has no threads"),
        ("concurrent.futures.ThreadPoolExecutor().submit(print)", "a sandbox has no threads"),
        ("await asyncio.to_thread(print)", "a sandbox has no threads"),
        ("await asyncio.create_subprocess_exec('ls')", "cannot start processes"),
        ("await asyncio.open_connection('localhost', 80)", "no network"),
        ("input()", "no standard input"),
        ("sys.stdin.read()", "no standard input"),
        ("select.select([0], [], [])", "no sockets"),
        ("asyncio.run(asyncio.sleep(0))", "cannot be called from a running event loop"),
        ("await asyncio.Event().wait()", "deadlock"),
    ],
)
def test_what_a_sandbox_cannot_do_is_an_error_and_no_hang(fail, line, words):
    program = (
        "import asyncio, concurrent.futures, queue, select, subprocess, sys, threading\n"
        f"async def main():\n    lock = threading.Lock()\n    {line}\n"
    )
    assert words in fail(program).message


NO_NETWORK, NO_PROCESSES = "a sandbox has no network of its own", "a sandbox cannot start processes"


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("socket.create_connection(('example.com', 80))", NO_NETWORK, "let the client fetch"),
        ("socket.socket().connect(('127.0.0.1', 80))", NO_NETWORK, "let the client fetch"),
        ("socket.gethostbyname('example.com')", NO_NETWORK, "let the client fetch"),
        ("urllib.request.urlopen('http://example.com')", f"urllib.error.URLError: <urlopen error {NO_NETWORK}>", "let"),
        (
            "urllib.request.urlopen('https://example.com')",
            f"urllib.error.URLError: <urlopen error {NO_NETWORK}>",
            "let",
        ),
        ("subprocess.run(['ls'])", NO_PROCESSES, "do the work in Python"),
        ("subprocess.Popen('ls', shell=True)", NO_PROCESSES, "do the work in Python"),
        ("os.system('ls')", NO_PROCESSES, "do the work in Python"),
        ("open('x.txt', 'w')", "'x.txt' cannot be written: a sandbox has files to read only", "io.BytesIO"),
        ("open('words.txt', mode='a')", "'words.txt' cannot be written: a sandbox has files to read only", "io."),
        ("Path('x').write_text('x')", "'x' cannot be written: a sandbox has files to read only", "io."),
        ("tempfile.TemporaryFile()", "a sandbox has no folder for temporary files", "io.BytesIO"),
    ],
)
@pytest.mark.parametrize("has_files", [True, False])
def test_what_the_system_does_not_have_is_an_os_error_that_says_so(sandbox, tmp_path, line, message, hint, has_files):
    program = f"""
    import os, socket, subprocess, tempfile, urllib.request
    from pathlib import Path

    async def main(is_caught: bool):
        try:
            {line}
        except OSError as error:
            if not is_caught:
                raise
            return str(error)
    """
    (tmp_path / "words.txt").write_text("one two")
    folder = tmp_path if has_files else None
    caught = sandbox.call("run", program, {"is_caught": True}, folder=folder)
    assert (caught.is_ok, caught.value) == (True, message.removeprefix("urllib.error.URLError: "))
    error = sandbox.call("run", program, {"is_caught": False}, folder=folder).value
    assert error["message"] == message
    assert hint in error["hint"]
    assert 'File "main.py"' in error["traceback"]
    assert "absent.py" not in error["traceback"]


@pytest.mark.parametrize("line", ["open('x.txt')", "os.remove('x.txt')", "os.mkdir('x')"])
def test_other_failures_with_files_have_a_hint(fail, line, tmp_path):
    error = fail(f"import os\nasync def main():\n    {line}\n", folder=tmp_path)
    assert error.hint == "a program sees the data files of its own folder, and can only read them"


def test_files_can_be_read_as_ever(run, tmp_path):
    (tmp_path / "words.txt").write_bytes("größer\r\n".encode())
    program = """
    import io
    from pathlib import Path

    async def main():
        with open("words.txt", encoding="utf-8", newline="") as file, io.open("words.txt", "rb", 0) as raw:
            return [file.read(), raw.read().hex()[:2], Path("words.txt").read_text()]
    """
    assert run(program, folder=tmp_path) == ["größer\r\n", "67", "größer\n"]


def test_a_deadlock_says_where_the_program_waits(fail):
    error = fail("import asyncio\nasync def main():\n    await asyncio.Event().wait()\n")
    assert error.message.startswith("deadlock: ")
    assert error.message.endswith("(waiting: main.py:3 in main)")


def test_termination_ends_a_blocking_sleep(sandbox):
    host = FakeHost()
    host.terminate()
    outcome = sandbox.call("run", "import time\nasync def main():\n    time.sleep(60)\n", host=host)
    assert outcome.value["code"] == "cancelled"
    assert outcome.run_ms < 5000


def test_termination_cancels_main(sandbox):
    program = """
    import asyncio
    from inferlet import session

    async def main():
        try:
            await asyncio.sleep(60)
        finally:
            session.send("cleaned up")
    """
    host = FakeHost()
    host.terminate()
    outcome = sandbox.call("run", program, host=host)
    assert outcome.value["code"] == "cancelled"
    assert host.messages == ["cleaned up"]


def test_asyncio_run_works_while_a_module_is_imported(run):
    assert run("import asyncio\nX = asyncio.run(asyncio.sleep(0.001, 5))\nasync def main():\n    return X\n") == 5


def test_the_whole_of_asyncio(run):
    program = """
    import asyncio

    async def tick(queue, n):
        await asyncio.sleep(0.005 * n)
        await queue.put(n)
        return n

    async def numbers():
        for n in range(3):
            yield n

    async def main():
        queue, lock, seen = asyncio.Queue(), asyncio.Lock(), []
        seen.append(await asyncio.gather(*(tick(queue, n) for n in range(3))))
        async with asyncio.TaskGroup() as group, lock:
            tasks = [group.create_task(tick(queue, n)) for n in (1, 2)]
        seen.append([task.result() for task in tasks])
        seen.append([n async for n in numbers()])
        try:
            await asyncio.wait_for(asyncio.sleep(5), 0.005)
        except TimeoutError:
            seen.append("timeout")
        done, pending = await asyncio.wait([asyncio.create_task(asyncio.sleep(t)) for t in (0, 5)], timeout=0.005)
        seen.append([len(done), len(pending)])
        return seen
    """
    assert run(program) == [[0, 1, 2], [1, 2], [0, 1, 2], "timeout", [1, 1]]


# Output.


def test_prints_arrive_whole_and_in_order_with_messages(sandbox):
    program = """
    import logging, sys
    from inferlet import log, session

    async def main():
        print("a", end="")
        session.send(1)
        print("b")
        print("ü" * 100_000)
        sys.stdout.buffer.write(b"bytes\\n")
        print("err", file=sys.stderr)
        log.info("x", 1)
        logging.getLogger("lib").warning("careful %d", 3)
        print("last", end="")
    """
    outcome = sandbox.call("run", program)
    stdout = "".join(text for name, text in outcome.host.printed if name == "stdout")
    assert stdout == "ab\n" + "ü" * 100_000 + "\nbytes\nlast"
    assert max(len(text.encode()) for _, text in outcome.host.printed) <= 65536
    assert ("stderr", "err\n") in outcome.host.printed
    assert outcome.host.logs == [("info", "x 1"), ("warning", "careful 3")]


def test_logging_goes_to_the_log_whatever_is_configured(sandbox):
    program = """
    import logging
    from inferlet import log

    logging.warning("first %d", 1)
    logging.basicConfig(level=logging.DEBUG, format="%(name)s")
    logger = logging.getLogger(__name__)

    async def main():
        logger.debug("details")
        logger.info("on %s", "it")
        log.info("x %s", 3)
        try:
            1 / 0
        except ZeroDivisionError:
            logger.exception("bad")
    """
    outcome = sandbox.call("run", program)
    *logs, (level, last) = outcome.host.logs
    assert logs == [("warning", "first 1"), ("info", "on it"), ("info", "x 3")]
    assert level == "error"
    assert last.startswith("bad\nTraceback")
    assert last.endswith("ZeroDivisionError: division by zero")
    assert outcome.host.printed == []


def test_streamed_prints_show_before_the_program_waits(sandbox):
    program = (
        "import asyncio\nasync def main():\n    print('.', end='')\n    await asyncio.sleep(0.001)\n    print('!')\n"
    )
    assert [text for _, text in sandbox.call("run", program).host.printed] == [".", "!\n"]


def test_a_generation_in_the_sandbox(sandbox):
    program = """
    import asyncio
    from inferlet import Context, Sampler, session

    async def main(prompt: str) -> list:
        with Context() as ctx:
            ctx.system("S")
            ctx.user(prompt)
            fork = ctx.fork()
            async for chunk in ctx.generate(Sampler.top_p(0.9, temperature=0.7), max_tokens=100, logprobs=True):
                session.send(chunk.text)
            out = await fork.forward([], Sampler.greedy(), top_k=2)
            stream = fork.generate()
            text = await stream
            return [ctx.last_text, chunk.finish, chunk.usage, out.top[0][0] == out.token, text]
    """
    outcome = sandbox.call("run", program, {"prompt": "Hi"}, host=FakeHost(replies=["Hello you", "Two"]))
    assert outcome.value == [
        "Hello you",
        "stop",
        {"prompt_tokens": 9, "cached_tokens": 0, "completion_tokens": 9, "drafted_tokens": 0, "accepted_tokens": 0},
        True,
        "Two",
    ]
    assert "".join(outcome.host.messages) == "Hello you"
    assert outcome.host.contexts == {}


def test_guesses_times_and_stops_in_the_sandbox(sandbox):
    program = """
    from inferlet import Context

    async def main() -> list:
        ctx = Context()
        ctx.append("ab")
        stream = ctx.generate(timeout=1.5, speculate="lookup", draft_tokens=5)
        await anext(stream)
        stream.draft("efg")
        stream.stop()
        return [stream.finish, stream.usage, ctx.text]
    """
    outcome = sandbox.call("run", program, host=FakeHost(replies=["abcdefgh"]))
    counts = {"prompt_tokens": 2, "cached_tokens": 0, "completion_tokens": 4, "drafted_tokens": 0, "accepted_tokens": 0}
    assert outcome.value == ["stopped", counts, "ababcd"]
    assert [(index, len(tokens)) for index, tokens in outcome.host.drafts] == [(4, 3)]


def test_holes_windows_positions_and_masks_in_the_sandbox(sandbox):
    class Host(FakeHost):
        def __init__(self):
            super().__init__(replies=["Hello"])
            self.told = []

        def _place(self, ctx, tokens, placement):
            self.told.append((tokens, placement.positions, placement.mask))
            super()._place(ctx, tokens, placement)

        def _drop(self, ctx, first, end):
            self.told.append((first, end))
            super()._drop(ctx, first, end)

        def _slide(self, ctx, window, sinks):
            self.told.append((window, sinks))
            super()._slide(ctx, window, sinks)

        def _start(self, ctx, plan):
            self.told.append((plan.window, plan.sinks))
            return super()._start(ctx, plan)

        def _start_pass(self, ctx, tokens, sampler, probes, prompt_length, matcher, placement):
            self.told.append((placement.positions, placement.mask))
            return super()._start_pass(ctx, tokens, sampler, probes, prompt_length, matcher, placement)

    program = """
    from inferlet import Context, InvalidInput

    async def main() -> list:
        ctx = Context(window=200, sinks=2)
        ctx.append([371, 372, 373])
        ctx.append([374, 375], positions=[9, 9])
        await ctx.forward([376], mask=[[range(3), range(5, 6)]])
        ctx.drop(range(1, 3))
        text = await ctx.generate(window=100, sinks=4)
        try:
            ctx.drop(range(99))
        except InvalidInput as error:
            return [text, error.message, ctx.length]
    """
    outcome = sandbox.call("run", program, host=Host())
    assert outcome.value == ["Hello", "cannot drop range(0, 99): the context has 11 tokens", 11]
    assert outcome.host.told == [(200, 2), ([374, 375], [9, 9], None), (None, [[0, 3, 2, 1]]), (1, 3), (100, 4)]


def test_a_matcher_in_the_sandbox(sandbox):
    program = """
    from inferlet import Context, Grammar, Sampler

    async def main() -> list:
        ctx = Context()
        ctx.append("?")
        matcher = ctx.matcher(Grammar.choice(["yes", "no"]))
        first = await ctx.forward(sampler=Sampler.greedy(), matcher=matcher, top_k=1, top_allowed=True)
        matcher.advance(first.token)
        other = matcher.fork()
        matcher.rollback(1)
        state, fitting = await other.look(), await matcher.num_fitting([first.token])
        other.release()
        return [ctx.model.tokenizer.decode([first.token]), state, fitting]
    """
    outcome = sandbox.call("run", program, host=FakeHost(replies=["yes"]))
    assert outcome.value == ["y", {"may_end": False, "is_complete": False, "forced": []}, 1]


def test_a_beam_search_in_the_sandbox(sandbox):
    program = """
    from inferlet import Context

    async def main() -> list:
        ctx = Context()
        ctx.append("ab")
        beams = await ctx.generate_beams(4, num_return_sequences=2, early_stopping="never", stop="!", max_tokens=9)
        ctx.append(beams.best.ids)
        return [[each.text, each.score, each.finish] for each in beams.hypotheses] + [beams.usage, ctx.text]
    """
    outcome = sandbox.call("run", program, host=FakeHost(replies=["one!", "three"]))
    counts = {"prompt_tokens": 2, "cached_tokens": 0, "completion_tokens": 8, "drafted_tokens": 0, "accepted_tokens": 0}
    assert outcome.value == [["one", -0.25, "stop"], ["three", -0.5, "stop"], counts, "abone"]


# The standard library.


def test_every_promised_module_is_there_and_works(run):
    program = f"""
    import importlib

    async def main():
        missing = []
        for name in {list(stdlib.MODULES)!r}:
            try:
                importlib.import_module(name)
            except ImportError as error:
                missing.append(f"{{name}}: {{error}}")
        return missing
    """
    assert run(program) == []


def test_modules_do_what_they_promise(run):
    program = """
    import csv, datetime, decimal, fractions, gzip, hashlib, io, json, re, sqlite3, statistics, string, struct, tomllib
    import xml.etree.ElementTree as ET
    import zlib

    async def main():
        base = sqlite3.connect(":memory:")
        base.execute("create table t (n int)")
        base.executemany("insert into t values (?)", [(1,), (2,)])
        return [
            base.execute("select sum(n) from t").fetchone()[0],
            hashlib.sha256(b"x").hexdigest()[:8],
            gzip.decompress(gzip.compress(b"abc")).decode(),
            tomllib.loads("a = 1")["a"],
            ET.fromstring("<a><b>1</b></a>").find("b").text,
            list(csv.reader(["a,b"])),
            str(decimal.Decimal("0.1") + decimal.Decimal("0.2")),
            statistics.mean([1, 2, 3]),
            "ß".encode("latin-1").hex(),
            datetime.datetime(2024, 2, 29).strftime("%A"),
        ]
    """
    assert run(program) == [3, "2d711642", "abc", 1, "1", [["a", "b"]], "0.3", 2, "df", "Thursday"]


# Speed: measured, not asserted; `-s` shows it.


def test_a_warm_no_op(sandbox):
    program = "async def main() -> int:\n    return 1\n"
    code = sandbox.call("run", program).host.stored_code
    for is_warm in (False, True):
        outcomes = [sandbox.call("run", program, code=code, is_warm=is_warm) for _ in range(20)]
        assert {outcome.value for outcome in outcomes} == {1}
        print(f"no-op, warmed up {is_warm}: {min(outcome.run_ms for outcome in outcomes):.2f} ms at best")


def test_the_contract_at_the_top_of_the_app_is_there():
    source = (Path(stdlib.__file__).parent / "app.py").read_text()
    assert "componentize-py" in (ast.get_docstring(ast.parse(source)) or "")


# Memory.


def test_what_was_there_before_the_program_is_immortal_and_what_is_new_lies_together(run):
    program = """
    import asyncio, json, sys
    from inferlet import Context

    (app,) = [module for module in list(sys.modules.values()) if hasattr(module, "_lasting")]

    class New:
        pass

    async def main() -> dict:
        pieces = [bytes(size) for size in range(1, 2000, 7)]
        return {
            "old": [name for name, value in vars(asyncio).items() if not sys._is_immortal(value)],
            "code": sys._is_immortal(json.dumps.__code__),
            "new": sys._is_immortal(New),
            "num_lasting": len(app._lasting.objects),
            "in_holes": sum(id(piece) < app._lasting.end for piece in pieces) / len(pieces),
        }
    """
    seen = run(program)
    assert seen["num_lasting"] > 50_000
    assert len(seen["old"]) < 5, seen["old"]
    assert seen["code"]
    assert not seen["new"]
    assert seen["in_holes"] < 0.2, "the slots between old objects are filled"
