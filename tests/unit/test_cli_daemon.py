"""Finding, starting and stopping the daemon, with a stand-in in its place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pie_cli import console, daemon, exits
from pie_cli.commands.serve import overrides_of
from pie_cli.main import invoke
from pie_engine.config import EngineConfig, ModelSection, load_config
from pie_engine.protocol.http import Health, MemberView
from tests.unit.cli_standin import short_home

Capture = pytest.CaptureFixture[str]

RUN = """
import sys
from pie_cli import daemon
from pie_cli.main import invoke
daemon._command = lambda overrides: [sys.executable, "-m", "tests.unit.cli_standin", sys.argv[1], sys.argv[2]]
sys.exit(invoke(sys.argv[3:]))
"""


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with short_home(monkeypatch) as folder:
        yield folder
        for os_pid in starts(folder):
            with suppress(ProcessLookupError):
                os.kill(os_pid, signal.SIGTERM)


def starts(home: Path) -> list[int]:
    """Process ids of all daemons that were started here."""
    file = home / "starts"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def pie(home: Path, scene: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(home), scene, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_run_starts_a_daemon_and_leaves_it_running(home: Path) -> None:
    first = pie(home, "ok", "run", "hello")
    out, err = first.communicate(timeout=60)
    assert (first.returncode, out) == (0, "hello\n"), err
    (os_pid,) = starts(home)
    assert err.splitlines()[0] == f"starting the Pie daemon (process {os_pid}; `pie stop` ends it)"
    second = pie(home, "ok", "run", "hello")
    assert second.communicate(timeout=60) == ("hello\n", "note: running the uploaded hello@0.1.0\n")
    assert starts(home) == [os_pid]
    assert daemon.running_daemon(load_config().paths) == os_pid


def test_two_at_once_start_one_daemon(home: Path) -> None:
    runs = [pie(home, "slow", "run", "hello") for _ in range(2)]
    outputs = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert [out for out, _ in outputs] == ["hello\n", "hello\n"]
    assert len(starts(home)) == 1
    assert any("pie-tiny: loading weights …\n" in err for _, err in outputs)


def test_a_daemon_that_is_stopped_while_two_wait_for_it(home: Path) -> None:
    first = pie(home, "stuck", "run", "hello")
    deadline = time.monotonic() + 30
    while daemon.running_daemon(load_config().paths) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    second = pie(home, "ok", "run", "hello")
    time.sleep(0.5)  # it finds the first daemon, or the place free: the outcome is the same
    os.kill(starts(home)[0], signal.SIGTERM)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 3
    assert err.splitlines()[-2:] == [
        "error: the daemon was stopped while it started",
        "hint: to start it again, run this again",
    ]
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out) == (0, "hello\n"), err
    assert len(starts(home)) == 2


@pytest.mark.parametrize(
    "words",
    [
        ("run", "hello"),
        pytest.param(("serve", "--background"), marks=pytest.mark.slow),
        pytest.param(("serve",), marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_while_the_daemon_starts_leaves_none(home: Path, words: tuple[str, ...]) -> None:
    command = pie(home, "stuck", *words)
    deadline = time.monotonic() + 30
    while daemon.running_daemon(load_config().paths) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=30)
    assert (out, "Traceback" in err) == ("", False)
    assert command.returncode == 130 or words == ("serve",), err
    assert daemon.running_daemon(load_config().paths) is None
    with pytest.raises(ProcessLookupError):
        os.kill(starts(home)[0], 0)


def test_a_daemon_that_dies_at_once_says_why(home: Path) -> None:
    run = pie(home, "dies", "run", "hello")
    _, err = run.communicate(timeout=60)
    assert run.returncode == 3
    assert err.splitlines()[1:] == ["error: the daemon does not start: the disk is full", "hint: make room"]


def test_a_model_that_does_not_load_is_the_error_and_the_daemon_goes(home: Path) -> None:
    run = pie(home, "no-model", "run", "hello")
    _, err = run.communicate(timeout=60)
    assert run.returncode == 3
    assert err.splitlines()[1:] == [
        "error: core `pie-tiny` does not start: there is no folder /no/model",
        "hint: correct `path`",
    ]
    assert daemon.running_daemon(load_config().paths) is None


@pytest.mark.parametrize(("cause", "exit_code"), [("not_found", 4), ("invalid_config", 2), ("model_error", 3)])
def test_what_keeps_a_daemon_from_starting_decides_the_exit_code(home: Path, cause: str, exit_code: int) -> None:
    failed = {"failed": {"code": cause, "message": "no"}}
    member = MemberView("core", "tiny", ready=False, os_pid=1, detail=failed)
    health = Health("starting", "0.1.0", 1, 1, 1, 0.0, [member], [])
    with pytest.raises(daemon.StartFailed) as caught:
        daemon._refuse_failed(health, is_ours=True)
    assert exits.exit_code_of(caught.value) == exit_code


async def test_a_daemon_whose_parts_die_again_and_again_is_not_waited_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    died = [f"core tiny (process {n}): killed by SIGSEGV; started again" for n in range(daemon.MAX_DEATHS)]
    looks = [died[:n] for n in range(daemon.MAX_DEATHS + 1)]

    async def look(_client: object) -> Health:
        core = MemberView("core", "tiny", ready=False, os_pid=1, detail={})
        return Health("starting", "0.1.0", 1, 1, 1, 0.0, [core], looks.pop(0))

    monkeypatch.setattr(daemon, "find_daemon", look)
    monkeypatch.setattr(daemon, "POLL_S", 0.0)
    with pytest.raises(daemon.StartFailed, match="3 parts of it have died") as caught:
        await daemon.wait_until_ready(None, load_config().paths, None, console.Steps(None))
    assert "`pie doctor --fix`" in caught.value.hint
    assert [line for line in capsys.readouterr().err.splitlines() if "warning" in line] == [
        f"warning: {text}" for text in died
    ]


def test_a_daemon_that_refuses_its_configuration_exits_2(home: Path) -> None:
    run = pie(home, "refuses", "run", "hello")
    _, err = run.communicate(timeout=60)
    assert run.returncode == 2
    assert err.splitlines()[1:] == ["error: the daemon does not start: no such port", "hint: correct `listen`"]


def test_paths_of_the_environment_are_from_our_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "my.toml").touch()
    given = {"PIE_HOME": "state", "PIE_CACHE": "cache", "PIE_CONFIG": "my.toml", "HF_HOME": "hf"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    environment = daemon._environment(load_config().paths)
    assert {name: environment[name] for name in given} == {
        name: f"{Path.cwd()}/{value}" for name, value in given.items()
    }
    assert "HF_HUB_CACHE" not in environment


def test_serve_runs_until_it_is_interrupted(home: Path) -> None:
    serve = pie(home, "ok", "serve")
    assert serve.stderr is not None
    while "serving" not in (line := serve.stderr.readline()):
        assert line
    assert f"on {load_config().paths.api_socket}; Ctrl-C ends it" in line
    second = pie(home, "ok", "serve")
    _, err = second.communicate(timeout=60)
    (os_pid,) = starts(home)
    assert second.returncode == 3
    assert err == f"error: a daemon is already running (process {os_pid})\nhint: `pie stop` ends it\n"
    serve.send_signal(signal.SIGINT)
    _, err = serve.communicate(timeout=60)
    assert serve.returncode == 0
    assert err.splitlines() == ["stopping; Ctrl-C again kills the daemon", "the daemon has stopped"]


def test_serve_in_the_background(home: Path) -> None:
    serve = pie(home, "ok", "serve", "--background")
    _, err = serve.communicate(timeout=60)
    assert serve.returncode == 0
    assert err.splitlines()[-1] == "serving pie-tiny on cpu in the background; `pie stop` ends it"
    assert invoke(["stop"]) == 0
    assert daemon.running_daemon(load_config().paths) is None


def test_serve_with_a_model_that_does_not_load(home: Path) -> None:
    serve = pie(home, "no-model", "serve")
    _, err = serve.communicate(timeout=60)
    assert serve.returncode == 3
    assert "error: core `pie-tiny` does not start" in err


@pytest.mark.parametrize(
    ("options", "exit_code", "says"),
    [
        (["--listen", "everywhere"], 2, "`gateway.listen` is `everywhere`; it must be a loopback address and a port"),
        (["--listen", "8.8.8.8:80"], 2, "`gateway.listen` is `8.8.8.8:80`"),
        (["--listen", "127.0.0.1:65536"], 2, "`gateway.listen` is `127.0.0.1:65536`"),
        (["--model", "./nothing"], 4, "nothing does not exist"),
        (["--model", "no-such-model"], 4, "no-such-model"),
        (["--draft-model", "./nothing"], 4, "nothing does not exist"),
    ],
)
@pytest.mark.parametrize("background", [[], ["--background"]])
def test_what_was_typed_wrong_for_serve_starts_no_daemon(
    home: Path, capsys: Capture, options: list[str], exit_code: int, says: str, background: list[str]
) -> None:
    assert invoke(["serve", *options, *background]) == exit_code
    assert says in capsys.readouterr().err
    assert not (home / "logs").exists()


def test_options_of_serve_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    config = EngineConfig(models=(ModelSection(path="a", num_pages=7),))
    assert overrides_of(config, [], "", "") == {}
    assert overrides_of(config, ["model", "org/name"], "fake", "127.0.0.1:8080") == {
        "models": [{"path": str(tmp_path / "model"), "driver": "fake"}, {"path": "org/name", "driver": "fake"}],
        "gateway": {"listen": "127.0.0.1:8080"},
    }
    assert overrides_of(config, [], "", "", is_deterministic=True)["models"] == [
        {"path": "a", "num_pages": 7, "deterministic": True}
    ]
    assert overrides_of(config, [], "", "", draft_model="model")["models"] == [
        {"path": "a", "num_pages": 7, "draft_model": str(tmp_path / "model")}
    ]
    assert overrides_of(config, [], "", "", quantize="int4")["models"] == [
        {"path": "a", "num_pages": 7, "quantize": "int4"}
    ]
    assert overrides_of(config, [], "fake", "")["models"] == [{"path": "a", "num_pages": 7, "driver": "fake"}]


def test_an_installation_without_the_engine_says_what_to_install(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(daemon, "ENGINE_MODULES", ("no_such_module",))
    assert invoke(["run", "hello"]) == 3
    assert capsys.readouterr().err == (
        "error: the engine is not installed (no no_such_module)\n"
        'hint: install Pie with its extra `engine`; in a checkout: pip install ".[engine]"\n'
    )


def test_a_home_that_cannot_be_written_is_named(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    file = home / "file"
    file.touch()
    monkeypatch.setenv("PIE_HOME", str(file))
    assert invoke(["run", "hello"]) == 3
    assert capsys.readouterr().err.splitlines() == [
        f"error: cannot write to {file}: File exists",
        "hint: set PIE_HOME to a folder that you can write to",
    ]
    assert invoke(["doctor"]) == 1
    assert f"problem  {file} is not a folder" in capsys.readouterr().out


def test_a_lock_file_of_a_dead_daemon_counts_for_nothing(home: Path) -> None:
    paths = load_config().paths
    paths.run.mkdir()
    assert daemon.running_daemon(paths) is None
    for text in ("", "{}", json.dumps({"os_pid": 2**22 + 1}), json.dumps({"os_pid": os.getpid()})):
        paths.daemon_lock.write_text(text)
        assert daemon.running_daemon(paths) is None
