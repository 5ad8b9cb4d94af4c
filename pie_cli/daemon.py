"""The user's daemon: find it, start it, wait until it can run programs, say why it cannot."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import IO, TYPE_CHECKING, Any

import msgspec

from pie_cli import console
from pie_client.errors import Interrupted, NoDaemon
from pie_engine.config import EngineConfig, Paths
from pie_engine.errors import ErrorInfo, PieError, ProtocolMismatch
from pie_engine.locks import try_lock
from pie_engine.protocol.http import Health, MemberView
from pie_engine.protocol.version import PROTOCOL_VERSION

if TYPE_CHECKING:
    from pie_client import PieClient

POLL_S = 0.05
MAX_DEATHS = 3
"""While somebody waits for the daemon to be ready; one may be an accident."""
SILENCE_S = 30.0
"""How long a daemon that is alive may leave its socket unanswered."""
END_S = 15.0
"""How long a daemon that we started may take to end."""
NUM_LOG_LINES = 12
ENGINE_MODULES = ("zmq", "uvicorn", "fastapi", "wasmtime", "componentize_py")
INSTALL_HINT = 'install Pie with its extra `engine`; in a checkout: pip install ".[engine]"'
PATH_VARIABLES = ("PIE_CONFIG", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME")


class StartFailed(PieError):
    """The daemon, or what it needs to run programs, does not start. `cause`: the code of what keeps it from it."""

    code = "start_failed"

    def __init__(self, message: str, *, hint: str = "", cause: str = "") -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


class Ended(StartFailed):
    """Somebody else's daemon has ended while we waited for it."""


class NotInstalled(PieError):
    """The extra that holds the engine is missing."""

    code = "not_installed"


class AlreadyRunning(PieError):
    code = "already_running"


async def find_daemon(client: PieClient) -> Health | None:
    """What the daemon says of itself; None when nobody answers."""
    try:
        return msgspec.convert(await client.health(), Health)
    except (NoDaemon, Interrupted):
        return None


async def require_daemon(client: PieClient) -> Health:
    """The running daemon. Raises `NoDaemon` or `ProtocolMismatch`."""
    health = await find_daemon(client)
    if health is None:
        raise NoDaemon("no daemon is running", hint="`pie run` starts one, and so does `pie serve`")
    _check_protocol(health)
    return health


async def ensure_daemon(client: PieClient, config: EngineConfig, overrides: Mapping[str, Any] | None = None) -> Health:
    """A daemon that can run programs; starts one in the background where none is. Raises `StartFailed`."""
    health = await find_daemon(client)
    if health is not None:
        _check_protocol(health)
        if can_run(health):
            return health
    started = None if health else await _start_once(client, config, overrides or {})
    with console.steps() as steps:
        while True:
            try:
                return await wait_until_ready(client, config.paths, started, steps)
            except Ended:
                # It was on its way down already when it was found: `pie stop` and `pie run` at once.
                started = await _start_once(client, config, overrides or {})
            except BaseException:
                if started is not None:
                    # It would refuse the next `pie run` too, also when the reason is gone; or nobody waits any more.
                    await started.end()
                raise


async def wait_until_ready(
    client: PieClient, paths: Paths, started: DaemonProcess | None, steps: console.Steps
) -> Health:
    """Waits while the daemon starts, showing what it does. Raises `StartFailed` once it cannot, `Ended` if gone."""
    silent_since = asyncio.get_running_loop().time()
    deaths = Deaths()
    while True:
        health = await find_daemon(client)
        now = asyncio.get_running_loop().time()
        if health is not None:
            _check_protocol(health)
            if can_run(health):
                return health
            _refuse_failed(health, is_ours=started is not None)
            silent_since = now
            deaths.show_new(health)
            deaths.refuse_many()
            steps.show(*progress_of(health))
        elif started is not None and started.has_exited:
            raise started.failure()
        elif started is None and running_daemon(paths) is None:
            raise Ended("the daemon has ended", hint="`pie serve` starts one")
        elif now - silent_since > SILENCE_S:
            raise StartFailed(
                f"the daemon does not answer on {paths.api_socket}",
                hint=f"`pie stop` ends it; its log is {paths.logs / 'daemon.log'}",
            )
        else:
            steps.show("starting the daemon")
        await asyncio.sleep(POLL_S)


class Deaths:
    """Says which members of the daemon die while somebody watches."""

    def __init__(self) -> None:
        self._known: set[str] | None = None
        self._num_shown = 0

    def show_new(self, health: Health) -> None:
        """Those since the first call."""
        new = [] if self._known is None else [text for text in health.incidents if text not in self._known]
        for text in new:
            console.warning(text)
        self._known = set(health.incidents)
        self._num_shown += len(new)

    def refuse_many(self) -> None:
        """Raises `StartFailed` where it would go on like this."""
        if self._num_shown >= MAX_DEATHS:
            raise StartFailed(
                f"the daemon does not become ready: {self._num_shown} parts of it have died",
                hint="`pie doctor` says which and why, and `pie doctor --fix` mends what it can",
            )


def can_run(health: Health) -> bool:
    """Whether there is a host to run programs and a core to generate."""
    ready = {member.role for member in health.members if member.ready}
    return {"host", "core"} <= ready


def progress_of(health: Health) -> tuple[str, float | None]:
    """What the slowest starting member does."""
    for member in health.members:
        progress = member.detail.get("progress")
        if not member.ready and isinstance(progress, dict):
            text = str(progress.get("text", ""))
            return (text if member.name in text else f"{member.name}: {text}"), progress.get("fraction")
    waiting = [member.name for member in health.members if not member.ready]
    return (f"starting {', '.join(waiting)}" if waiting else "starting the daemon"), None


def running_daemon(paths: Paths) -> int | None:
    """The process id of the daemon that holds the lock of this home."""
    from pie_client.lock import holder

    return holder(paths.daemon_lock)


def missing_engine_modules(config: EngineConfig) -> list[str]:
    """What the engine imports and this installation does not have."""
    needs_torch = any(model.driver != "fake" for model in config.models)
    modules = [*ENGINE_MODULES, *(["torch"] if needs_torch else [])]
    return [module for module in modules if importlib.util.find_spec(module) is None]


class DaemonProcess:
    """A daemon that this command has started."""

    def __init__(self, config: EngineConfig, overrides: Mapping[str, Any]) -> None:
        """Spawns it in a session of its own. Raises `NotInstalled`."""
        missing = missing_engine_modules(config)
        if missing:
            raise NotInstalled(f"the engine is not installed (no {', '.join(missing)})", hint=INSTALL_HINT)
        self._paths = config.paths
        self._log = config.paths.logs / "daemon.log"
        with self._log.open("ab") as file:
            self._log_start = file.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(
                _command(overrides),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # Ctrl-C is for this command; and the files of a user's project must not shadow modules.
                start_new_session=True,
                cwd=config.paths.home,
                env=_environment(config.paths),
            )

    @property
    def os_pid(self) -> int:
        return self._process.pid

    @property
    def has_exited(self) -> bool:
        return self._process.poll() is not None

    async def has_lock(self) -> None:
        """Waits until no other daemon can start here, or until this one has died. Ends it when that is interrupted."""
        try:
            while not self.has_exited and running_daemon(self._paths) is None:
                await asyncio.sleep(POLL_S)
        except BaseException:
            await self.end()
            raise

    async def end(self) -> None:
        """Ends it, in order if it does so in time."""
        self.terminate()
        try:
            await asyncio.wait_for(self.wait(), END_S)
        except TimeoutError:
            self.kill()
            await self.wait()

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    async def wait(self) -> int:
        while not self.has_exited:
            await asyncio.sleep(POLL_S)
        assert self._process.returncode is not None
        return self._process.returncode

    def failure(self) -> StartFailed:
        """Why it has exited: its own last words."""
        if self._process.returncode == 0:
            return StartFailed("the daemon was stopped while it started", hint="to start it again, run this again")
        lines = self.new_log_text().splitlines()
        message = _last_with(lines, "error: ")
        if message:
            hint, cause = _last_with(lines, "hint: "), _last_with(lines, "code: ")
            return StartFailed(f"the daemon does not start: {message}", hint=hint, cause=cause)
        last = "\n".join(f"  {line}" for line in lines[-NUM_LOG_LINES:])
        return StartFailed(
            f"the daemon ended with exit status {self._process.returncode}\n{last}".rstrip(), hint=f"see {self._log}"
        )

    def new_log_text(self) -> str:
        """What it has logged so far."""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode("utf-8", "replace")


@asynccontextmanager
async def start_lock(paths: Paths) -> AsyncIterator[None]:
    """Held by who starts a daemon, so that two at once start one."""
    with _opened_lock(paths) as file:
        while not try_lock(file):
            await asyncio.sleep(POLL_S)
        yield


def _opened_lock(paths: Paths) -> IO[str]:
    """Makes the folders that a start needs, too."""
    try:
        for folder in (paths.home, paths.run, paths.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return paths.start_lock.open("w")
    except OSError as error:
        raise StartFailed(
            f"cannot write to {error.filename or paths.home}: {error.strerror}",
            hint="set PIE_HOME to a folder that you can write to",
        ) from error


async def _start_once(client: PieClient, config: EngineConfig, overrides: Mapping[str, Any]) -> DaemonProcess | None:
    """Starts a daemon unless somebody else did meanwhile."""
    async with start_lock(config.paths):
        if await find_daemon(client) or running_daemon(config.paths):
            return None
        process = DaemonProcess(config, overrides)
        console.note(f"starting the Pie daemon (process {process.os_pid}; `pie stop` ends it)")
        await process.has_lock()
    return process


def _check_protocol(health: Health) -> None:
    if health.protocol != PROTOCOL_VERSION:
        raise ProtocolMismatch(
            f"the running daemon ({health.version}) speaks protocol {health.protocol}, "
            f"this command speaks {PROTOCOL_VERSION}",
            hint="`pie stop --drain` lets its programs end and stops it; then run this again",
        )


def _refuse_failed(health: Health, *, is_ours: bool) -> None:
    """Raises when all hosts or all cores have given up."""
    for role in ("core", "host"):
        members = [member for member in health.members if member.role == role]
        failures = [failure for member in members if (failure := failure_of(member))]
        if members and len(failures) == len(members):
            hint = failures[0].hint if is_ours else f"{failures[0].hint}; then `pie stop`, and try again".lstrip("; ")
            message = f"{role} `{members[0].name}` does not start: {failures[0].message}"
            raise StartFailed(message, hint=hint, cause=failures[0].code)


def failure_of(member: MemberView) -> ErrorInfo | None:
    """Why a member has given up."""
    failed = member.detail.get("failed")
    if not isinstance(failed, dict):
        return None
    return ErrorInfo(str(failed.get("code", "")), str(failed.get("message", "")), str(failed.get("hint", "")))


def _command(overrides: Mapping[str, Any]) -> list[str]:
    command = [sys.executable, "-m", "pie_engine.daemon"]
    return [*command, "--config-json", json.dumps(overrides)] if overrides else command


def _environment(paths: Paths) -> dict[str, str]:
    """Ours. Paths in it are from the folder that we are in, and the daemon is in another."""
    absolute = {name: os.path.abspath(os.environ[name]) for name in PATH_VARIABLES if os.environ.get(name)}
    return {**os.environ, **absolute, "PIE_HOME": str(paths.home), "PIE_CACHE": str(paths.cache)}


def _last_with(lines: Sequence[str], prefix: str) -> str:
    found = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    return found[-1] if found else ""
