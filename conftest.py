"""What every test can use: a home of its own, a running daemon with pie-tiny, a client, and the time budget."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from tests.thoroughness import SLOW_PROFILE

pytest_plugins = ["pytester", "pie_testing.plugin"]

ROOT = Path(__file__).parent
CACHE = ROOT / "build" / "test-cache"
# The benches import one another as scripts do; so do the tests of them.
sys.path.append(str(ROOT / "benches"))
START_TIMEOUT_S = 110
STOP_TIMEOUT_S = 20

BUDGET_S = {"unit": 150, "contract": 90, "integration": 240, "e2e": 240, "tui": 30, "inferlets": 60}
"""Written budget of each part on 2 cores; docs/testing.md says why. Going over is reported, and fails at twice."""
SLOW_BUDGET_S = {"unit": 300, "integration": 480, "e2e": 720, "tui": 30, "inferlets": 30}
"""On top of it with `--slow`."""


class Daemon:
    """A real daemon of its own home, driven as a user drives it: by the command line."""

    def __init__(self, home: Path, *args: str, model: str = "", more: str = "") -> None:
        """`model`: more lines for the configuration of the model; `more`: those of other sections."""
        self.home = home
        config = home / "config.toml"
        # fp32 on every machine: greedy tokens that batches of different shapes agree on.
        config.write_text('[[models]]\ndtype = "float32"\n' + model + more)
        self.env = {**os.environ, "PIE_HOME": str(home), "PIE_CACHE": str(CACHE), "PIE_CONFIG": str(config)}
        self.env.pop("PYTHONPATH", None)
        self.args = args

    def use_fake_model(self) -> None:
        """Where nothing depends on what a model says: it starts without torch."""
        (self.home / "config.toml").write_text('[[models]]\ndriver = "fake"\n')

    def pie(
        self, *args: str, timeout_s: float = START_TIMEOUT_S, input_text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pie_cli", *args]
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=timeout_s, input=input_text, cwd=self.home
        )

    def start(self) -> None:
        done = self.pie("serve", "--background", *self.args)
        assert done.returncode == 0, f"pie serve: {done.stdout}\n{done.stderr}"

    def stop(self) -> None:
        self.pie("stop", timeout_s=STOP_TIMEOUT_S)


def _new_home() -> Path:
    # Short on purpose: sockets live below it.
    return Path(tempfile.mkdtemp(prefix="pie-t-"))


@contextmanager
def _running(model: str = "", more: str = "") -> Iterator[Daemon]:
    """A daemon with pie-tiny on the CPU driver, in a home that goes with it."""
    running = Daemon(_new_home(), model=model, more=more)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(running.home, ignore_errors=True)


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """One daemon for tests that leave it as it was."""
    with _running() as running:
        yield running


@pytest.fixture(scope="session")
def crowded() -> Iterator[Daemon]:
    """A daemon with 24 KV pages and 2 MiB of host memory for more, for tests that leave it as it was."""
    with _running("num_pages = 24\noffload_memory_mb = 2\n") as running:
        yield running


@pytest.fixture(scope="module")
def queueing() -> Iterator[Daemon]:
    """As `crowded`, where who bids most keeps the pages for as long as a test may take."""
    with _running(
        "num_pages = 24\noffload_memory_mb = 2\n", more="[scheduling]\nmax_wait_steps = 100_000\n"
    ) as running:
        yield running


@pytest.fixture(scope="session")
def mortal() -> Iterator[Daemon]:
    """A daemon for tests that kill a part of it, wait until that is back, and leave nothing running. Who has lost all
    clients is waited for half a second."""
    with _running(more="[gateway]\ndisconnect_grace_s = 0.5\n") as running:
        yield running


@pytest.fixture(scope="session")
def daemon_home(daemon: Daemon) -> Path:
    """The home of `daemon`."""
    return daemon.home


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A home in which no daemon runs yet; whatever is started there is stopped."""
    home = Daemon(_new_home())
    yield home
    home.stop()
    shutil.rmtree(home.home, ignore_errors=True)


@pytest.fixture
def fresh_home(fresh: Daemon) -> Path:
    """The home of `fresh`."""
    return fresh.home


@pytest.fixture
async def client(daemon: Daemon) -> AsyncIterator[object]:
    """A connected client of `daemon`."""
    from pie_client import PieClient

    async with PieClient(home=daemon.home) as connected:
        yield connected


@pytest.fixture
def eventually():
    """Wait for a condition that other processes bring about: `await eventually(lambda: …)`."""

    async def wait(condition, timeout_s: float = 10.0, every_s: float = 0.02):
        end = time.monotonic() + timeout_s
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return result
            assert time.monotonic() < end, f"not within {timeout_s} s"
            await asyncio.sleep(every_s)

    return wait


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run what is marked slow (make test-all)")


def pytest_configure(config: pytest.Config) -> None:
    # Also for tests that get a home of their own: no test builds a runtime that another one has built.
    os.environ["PIE_CACHE"] = str(CACHE)
    _use_own_temporary_folder(config)
    settings.register_profile(SLOW_PROFILE)
    if config.getoption("--slow"):
        settings.load_profile(SLOW_PROFILE)


def _use_own_temporary_folder(config: pytest.Config) -> None:
    """For the whole run, gone with it. A home with a long path has its sockets below the system's temporary folder, in
    a folder named after that path: what an earlier run left there would be in the way of a test with the same path."""
    # The folders of tests stay where pytest keeps them, to be looked at after a failure.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="pie-t-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ["TMPDIR"] = tempfile.tempdir = folder


def pytest_collection_finish(session: pytest.Session) -> None:
    # Torch, Transformers and thousands of tests stay; the collector need not look at them again and again.
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


_spent_s: defaultdict[str, float] = defaultdict(float)


def _part(nodeid: str) -> str:
    parts = Path(nodeid.split("::")[0]).parts
    return parts[1] if parts[0] == "tests" and len(parts) > 2 else parts[0]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _spent_s[_part(report.nodeid)] += report.duration


def _budgets(config: pytest.Config) -> dict[str, int]:
    """Seconds, by part."""
    is_slow = config.getoption("--slow")
    return {part: budget + (SLOW_BUDGET_S.get(part, 0) if is_slow else 0) for part, budget in BUDGET_S.items()}


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    over = [part for part, budget in _budgets(session.config).items() if _spent_s[part] > 2 * budget]
    if over and exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("time budget")
    for part, spent in sorted(_spent_s.items()):
        budget = _budgets(terminalreporter.config).get(part)
        verdict = "" if budget is None else f" of {budget} s" + (" OVER" if spent > budget else "")
        terminalreporter.write_line(f"{part:12} {spent:7.1f} s{verdict}")
