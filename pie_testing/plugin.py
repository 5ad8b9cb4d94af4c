"""The pytest plugin: options, marks, fixtures, and what a failed test shows.

Every pytest run where Pie is installed loads this file, so it imports nothing but pytest until a test asks for it.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import re
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pie_testing.budget import MARKER, overspent, wrong_budget
from pie_testing.paths import ProgramPath

if TYPE_CHECKING:
    from pie_testing.built import Builds
    from pie_testing.engines import Engine
    from pie_testing.fake import FakeModel
    from pie_testing.golden import Golden
    from pie_testing.runs import Programs, Run, Start

ENGINES = ("embedded", "daemon")
_PROGRAMS = pytest.StashKey["Programs"]()
_GOLDEN = pytest.StashKey[list[Any]]()
_GOLDEN_OWNERS = pytest.StashKey[dict[Any, str]]()
_ENGINE = pytest.StashKey["Engine"]()
_BUILDS = pytest.StashKey["Builds"]()
_PATH = pytest.StashKey[ProgramPath]()
_FIXTURE = "_programs"
_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pie", "Pie inferlets")
    group.addoption(
        "--pie-engine",
        choices=ENGINES,
        default="embedded",
        help="where programs run: within pytest, or on a daemon of their own (default: embedded)",
    )
    group.addoption(
        "--pie-model",
        metavar="MODEL",
        default="",
        help="model of tests that name none: pie-tiny, a folder, a name or id of `pie model list` (default: the fake)",
    )
    group.addoption(
        "--pie-replay",
        metavar="FILE",
        action="append",
        default=[],
        help="a recording of `pie run --record` that the program must replay as it was; can be given again",
    )
    group.addoption(
        "--pie-built", action="store_true", help="run programs as the components that `pie build` makes of them"
    )
    group.addoption("--pie-update", action="store_true", help="write golden outputs instead of comparing them")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    config.addinivalue_line("markers", "model(name): run on this model, `pie-tiny` for one, instead of the fake one")
    config.stash[_GOLDEN], config.stash[_GOLDEN_OWNERS] = [], {}
    config.stash[_PATH] = ProgramPath()


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    if recordings := config.getoption("--pie-replay"):
        from pie_testing.replays import replay_items

        items += replay_items(session, recordings)
    for item in items:
        for mark in item.iter_markers("budget"):
            if wrong := wrong_budget(mark.args, mark.kwargs):
                raise pytest.UsageError(f"{item.nodeid}: {wrong}")
        for mark in item.iter_markers("model"):
            if len(mark.args) != 1 or mark.kwargs or not isinstance(mark.args[0], str):
                raise pytest.UsageError(f"{item.nodeid}: `model` takes the name of a model")


@pytest.hookimpl(tryfirst=True)
def pytest_collectstart(collector: pytest.Collector) -> None:
    if isinstance(collector, pytest.Module):
        collector.config.stash[_PATH].enter(collector.path)


def pytest_collection_finish(session: pytest.Session) -> None:
    """The engine may have to build the Python runtime first, which is not what the first test takes its time for."""
    needs_it = any(_FIXTURE in getattr(item, "fixturenames", ()) for item in session.items)
    if needs_it and not session.config.option.collectonly:
        session.config.stash[_ENGINE] = _make_engine(session.config)
        # All that was imported stays; the collector need not look at it again for every program.
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[_PATH].enter(item.path)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _PATH in config.stash:
        config.stash[_PATH].leave()
    if _ENGINE in config.stash:  # no test has come to use it
        config.stash[_ENGINE].close()


# Fixtures.


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Where the programs of this run are run: what `run` and `start` use."""
    made = request.config.stash.get(_ENGINE, None)
    if made is None:
        made = request.config.stash[_ENGINE] = _make_engine(request.config)
    yield made
    del request.config.stash[_ENGINE]
    made.close()


@pytest.fixture
def fake() -> FakeModel:
    """The model of this test, which says what it is told to."""
    from pie_testing.fake import FakeModel

    return FakeModel()


@pytest.fixture
def _programs(request: pytest.FixtureRequest, engine: Engine, fake: FakeModel) -> Iterator[Programs]:
    """The programs of this test."""
    from pie_testing.engines import Models
    from pie_testing.runs import Programs

    marker = request.node.get_closest_marker("model")
    scripted = "fake" in request.node.fixturenames and "fake" in _asked_for(request)
    path = marker.args[0] if marker else "" if scripted else request.config.getoption("--pie-model")
    user = f"test-{next(_numbers)}"
    builds, here = _builds(request.config), request.path.parent
    programs = request.node.stash[_PROGRAMS] = Programs(engine, Models(fake, path), here, user, builds)
    yield programs
    programs.end()


@pytest.fixture
def run(_programs: Programs) -> Run:
    """`run(main, prompt="Hi")` runs a program and returns its `Result`."""
    from pie_testing.runs import Run

    return Run(_programs)


@pytest.fixture
def start(_programs: Programs) -> Start:
    """`async with start(main, prompt="Hi") as process` runs a program that the test talks to."""
    from pie_testing.runs import Start

    return Start(_programs)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Iterator[Golden]:
    """`golden(result)` compares with what is in the folder `golden` beside the test."""
    from pie_testing.golden import Golden

    config, node = request.config, request.node
    updates, owners = config.getoption("--pie-update"), config.stash[_GOLDEN_OWNERS]
    test = re.sub(r"^test_", "", node.name)
    made = Golden(request.path.parent, test, updates=updates, owners=owners, node=node.nodeid)
    yield made
    config.stash[_GOLDEN].extend(made.updated)


def _asked_for(request: pytest.FixtureRequest) -> set[str]:
    """The fixtures that the test names itself, or that fixtures of its own project name."""
    info = getattr(request.node, "_fixtureinfo", None)
    names = set(info.argnames) if info is not None else set()
    definitions = info.name2fixturedefs.items() if info is not None else ()
    for name, found in definitions:
        if found and found[-1].func.__module__ != __name__:
            names |= {name, *found[-1].argnames}
    return names


def _builds(config: pytest.Config) -> Builds | None:
    """None: programs run as they are."""
    if not config.getoption("--pie-built"):
        return None
    if _BUILDS not in config.stash:
        from pie_testing.built import Builds

        config.stash[_BUILDS] = Builds(_teller(config))
    return config.stash[_BUILDS]


def _make_engine(config: pytest.Config) -> Engine:
    try:
        if config.getoption("--pie-engine") == "daemon":
            from pie_testing.daemon import DaemonEngine

            daemon: Engine = DaemonEngine()
            return daemon
        from pie_testing.embedded import EmbeddedEngine
    except ModuleNotFoundError as error:
        raise pytest.UsageError(
            f"this engine needs the package {error.name}; install Pie with its extra `test`, or `engine`"
        ) from error
    return EmbeddedEngine(_teller(config))


def _teller(config: pytest.Config) -> Callable[[str], None]:
    """Tells what takes long between pytest's own lines."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")

    def say(text: str) -> None:
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(f"{text} …")

    return say


@pytest.hookimpl
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Asynchronous tests of programs need no other plugin; where one runs them, it comes first."""
    if _FIXTURE not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    import asyncio

    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


# What a test takes, and what a failed one shows.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    outcome = yield
    _note_what_it_took(item)
    mark, programs = item.get_closest_marker("budget"), item.stash.get(_PROGRAMS, None)
    if mark is not None and programs is not None:
        programs.end()
        too_much = overspent(mark.kwargs, programs.results)
        if too_much:
            pytest.fail("over budget: " + "; ".join(too_much), pytrace=False)
    return outcome


def _note_what_it_took(item: pytest.Item) -> None:
    """For JUnit."""
    programs = item.stash.get(_PROGRAMS, None)
    results = programs.results if programs is not None else []
    if results:
        item.user_properties.append(("pie_tokens", sum(result.tokens for result in results)))
        item.user_properties.append(("pie_passes", sum(result.num_passes or 0 for result in results)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    programs = item.stash.get(_PROGRAMS, None)
    if report.when == "call" and report.failed and programs is not None:
        programs.end()
        for number, result in enumerate(programs.results, 1):
            of = f" ({number} of {len(programs.results)})" if len(programs.results) > 1 else ""
            is_shown = result.error is not None and "in the program:" in report.longreprtext
            report.sections.append((f"program {result.program}{of}", result.report(with_traceback=not is_shown)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for path in config.stash[_GOLDEN]:
        terminalreporter.write_line(f"updated {path}")
