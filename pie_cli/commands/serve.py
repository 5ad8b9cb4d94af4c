"""`pie serve`: the daemon in the foreground, or in the background with other settings than the configured ones."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pie_cli import console, exits
from pie_cli.client import new_client, run_async

if TYPE_CHECKING:
    from pie_cli.daemon import DaemonProcess
    from pie_client import PieClient
    from pie_engine.config import EngineConfig
    from pie_engine.protocol.http import Health

WATCH_S = 1.0


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(help="A folder, or a name or id that `pie model list` shows. Repeatable."),
    ] = None,
    driver: Annotated[str, typer.Option(help="`cpu`, `cuda` or `fake`.")] = "",
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same bits whatever else runs: see docs/sampling.md.")
    ] = False,
    draft_model: Annotated[
        str, typer.Option(help='A smaller model with the same tokenizer, which guesses for `speculate="model"`.')
    ] = "",
    quantize: Annotated[str, typer.Option(help="`int8` or `int4`: weights of fewer bits, made while loading.")] = "",
    listen: Annotated[str, typer.Option(help="HOST:PORT on loopback, besides the Unix socket.")] = "",
    background: Annotated[bool, typer.Option("--background/--foreground", help="Where the daemon runs.")] = False,
    monitor: Annotated[
        bool, typer.Option("--monitor", help="Show what it does, as `pie monitor`; `q` leaves the daemon running.")
    ] = False,
) -> int:
    """Start the daemon and load its models.

    What is not given here is as in the configuration file.
    """
    from pie_engine.config import load_config

    overrides = overrides_of(
        load_config(),
        model or [],
        driver,
        listen,
        is_deterministic=deterministic,
        draft_model=draft_model,
        quantize=quantize,
    )
    config = load_config(overrides)
    _check(config, [*(model or []), *([draft_model] if draft_model else [])], listen)
    if monitor:
        from pie_cli.monitor.running import require_terminal

        require_terminal()
    if background:
        return run_async(_background(config, overrides, is_shown=monitor))
    return run_async(_foreground(config, overrides, is_shown=monitor))


def _check(config: EngineConfig, models: list[str], listen: str) -> None:
    """Refuse what was typed wrong, before there is a daemon that fails on it."""
    if listen:
        from pie_engine.protocol.listen import listen_address

        listen_address(listen)
    for model in models if config.models[0].driver != "fake" else []:
        from pathlib import Path

        from pie_engine.hub.places import resolve

        # A single file would be unpacked, which the daemon shows as its progress.
        if not Path(model).expanduser().is_file():
            resolve(_absolute(model), config.paths)


def overrides_of(
    config: EngineConfig,
    models: list[str],
    driver: str,
    listen: str,
    *,
    is_deterministic: bool = False,
    draft_model: str = "",
    quantize: str = "",
) -> dict[str, Any]:
    """The settings that these options stand for, over the configured ones."""
    import msgspec

    overrides: dict[str, Any] = {}
    given: dict[str, Any] = {"driver": driver} if driver else {}
    if is_deterministic:
        given["deterministic"] = True
    if draft_model:
        given["draft_model"] = _absolute(draft_model)
    if quantize:
        given["quantize"] = quantize
    if models or given:
        sections = [{"path": _absolute(path)} for path in models] or msgspec.to_builtins(config.models)
        overrides["models"] = [section | given for section in sections]
    if listen:
        overrides["gateway"] = {"listen": listen}
    return overrides


def _absolute(path: str) -> str:
    """A folder by its full path, since the daemon runs elsewhere; a name as it is."""
    from pathlib import Path

    folder = Path(path).expanduser()
    return str(folder.absolute()) if folder.exists() or path.startswith((".", "/", "~")) else path


async def _background(config: EngineConfig, overrides: dict[str, Any], *, is_shown: bool) -> int:
    from pie_cli.daemon import ensure_daemon

    async with new_client() as client:
        await _refuse_second(client, config)
        health = await ensure_daemon(client, config, overrides)
        if is_shown:
            from pie_cli.monitor.running import show_client

            await show_client(client)
    console.note(f"serving {_models_of(health)} in the background; `pie stop` ends it")
    return exits.OK


async def _foreground(config: EngineConfig, overrides: dict[str, Any], *, is_shown: bool) -> int:
    from pie_cli.daemon import DaemonProcess, StartFailed, start_lock

    async with new_client() as client:
        async with start_lock(config.paths):
            await _refuse_second(client, config)
            process = DaemonProcess(config, overrides)
            await process.has_lock()
        with _Stopper(process) as stopper:
            try:
                await _serve(client, config, process, is_shown=is_shown)
            except StartFailed:
                if not stopper.is_asked:
                    raise
            finally:
                await process.end()
    console.note("the daemon has stopped")
    return exits.OK


async def _serve(client: PieClient, config: EngineConfig, process: DaemonProcess, *, is_shown: bool) -> None:
    """Until the daemon has ended. Raises `StartFailed` unless it ended in order."""
    from pie_cli.daemon import wait_until_ready

    with console.steps() as steps:
        health = await wait_until_ready(client, config.paths, process, steps)
    if is_shown:
        from pie_cli.monitor.running import show_client

        await show_client(client, until=process.wait())
    console.note(f"serving {_models_of(health)} on {config.paths.api_socket}; Ctrl-C ends it")
    await _show_deaths(client, process)
    if await process.wait() != 0:
        raise process.failure()


async def _show_deaths(client: PieClient, process: DaemonProcess) -> None:
    """Until the daemon has ended."""
    import asyncio

    from pie_cli.daemon import Deaths, find_daemon

    deaths = Deaths()
    while not process.has_exited:
        if health := await find_daemon(client):
            deaths.show_new(health)
        await asyncio.sleep(WATCH_S)


class _Stopper:
    """Ctrl-C, SIGTERM and SIGHUP end the daemon; once more kills it."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, process: DaemonProcess) -> None:
        import asyncio

        self.is_asked = False
        self._process = process
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> _Stopper:
        for number in self.SIGNALS:
            self._loop.add_signal_handler(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self.SIGNALS:
            self._loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self.is_asked:
            self._process.kill()
        else:
            self.is_asked = True
            console.note("stopping; Ctrl-C again kills the daemon")
            self._process.terminate()


async def _refuse_second(client: PieClient, config: EngineConfig) -> None:
    from pie_cli.daemon import AlreadyRunning, find_daemon, running_daemon

    os_pid = running_daemon(config.paths)
    if os_pid is None and (health := await find_daemon(client)):
        os_pid = health.daemon_os_pid
    if os_pid is not None:
        raise AlreadyRunning(f"a daemon is already running (process {os_pid})", hint="`pie stop` ends it")


def _models_of(health: Health) -> str:
    """`pie-tiny on cpu (float32: 15 MiB of weights, 512 MiB of KV for 104,848 tokens)`."""
    cores = [member for member in health.members if member.role == "core" and member.ready]
    return ", ".join(f"{core.name} on {core.detail.get('device', 'cpu')}{_memory_of(core.detail)}" for core in cores)


def _memory_of(detail: dict[str, Any]) -> str:
    """What it has taken, where a core says so."""
    weights, pages, page_bytes, page_size = (
        int(detail.get(key, 0)) for key in ("weight_bytes", "num_pages", "page_bytes", "page_size")
    )
    if not weights:
        return ""
    kv_mib, num_tokens = pages * page_bytes >> 20, pages * page_size
    memory = f"{weights >> 20} MiB of weights, {kv_mib} MiB of KV for {num_tokens:,} tokens"
    if draft := detail.get("draft_model"):
        draft_kv_mib = draft["num_pages"] * draft["page_bytes"] >> 20
        memory += f"; {draft['model']} guesses: {draft['weight_bytes'] >> 20} MiB of weights, {draft_kv_mib} MiB of KV"
    quantized = f"weights in {detail['quantize']}, " if detail.get("quantize") else ""
    return f" ({quantized}{detail['dtype']}: {memory})"
