"""Time, randomness, waits, and what a sandbox cannot do."""

from __future__ import annotations

import time

import pytest

from inferlet.testing import FakeHost

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
    import sched, select, threading, time

    async def main():
        started = time.monotonic()
        time.sleep(0.05)
        select.select([], [], [], 0.05)
        lock = threading.Lock()
        with lock:
            assert not lock.acquire(timeout=0.05)
        assert not threading.Event().wait(0.05)
        turns = sched.scheduler()
        turns.enter(0.05, 0, lambda: None)
        turns.run()
        return time.monotonic() - started
    """
    outcome = sandbox.call("run", program)
    assert 0.25 <= outcome.value < 3
    assert outcome.host.calls["futures.wait_any"] >= 5


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
        ("breakpoint()", "a sandbox has no terminal, so breakpoint() does not work here"),
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
