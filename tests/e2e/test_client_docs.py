"""Every program in docs/python-client.md runs as it stands and prints what is shown below it."""

from __future__ import annotations

import asyncio
import inspect
import re
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import pie_client
from pie_cli.templates import create_program
from pie_engine.config import load_config
from tests.pages import ROOT, blocks_of, checked_by

PAGE = (Path(__file__).parents[2] / "docs" / "python-client.md").read_text("utf-8")
BLOCKS = [(block.language, block.text) for block in checked_by(__file__, "docs/python-client.md")]
FILE = re.compile(r"# (\w+\.py)\n")
PORT = "8765"


def programs() -> list[tuple[str, str | None]]:
    """Each program with what it prints; None: the page does not say."""
    following = [*BLOCKS[1:], ("", "")]
    return [
        (text, output if kind == "text" else None)
        for (language, text), (kind, output) in zip(BLOCKS, following, strict=True)
        if language == "python" and not FILE.match(text)
    ]


RUN = [pair for pair in programs() if "FastAPI" not in pair[0]]
(SERVER,) = [text for text, _ in programs() if "FastAPI" in text]


def whole(piece: str) -> str:
    """A piece of the page inside the `async with` that the page speaks of; what is whole stays as it is."""
    if "asyncio.run(" in piece:
        return piece
    head = "import asyncio\nfrom pie_client import *\n\nasync def page():\n    async with PieClient() as client:\n"
    return f"{head}{textwrap.indent(piece, ' ' * 8)}\nasyncio.run(page())\n"


@pytest.fixture
def folder(daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of somebody who reads the page: the files it shows, and `pie new hello`."""
    create_program(tmp_path / "hello", "chat")
    for _, text in BLOCKS:
        if name := FILE.match(text):
            (tmp_path / name[1]).write_text(text)
    monkeypatch.chdir(tmp_path)
    for name in ("PIE_HOME", "PIE_CONFIG"):
        monkeypatch.setenv(name, daemon.env[name])
    return tmp_path


@contextmanager
def tcp_port(socket: Path) -> Iterator[str]:
    """A port on loopback that leads to the daemon's socket, since the tests' daemon does not listen on one."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(socket))
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield str(server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


@pytest.mark.parametrize(("program", "output"), RUN)
def test_every_program_on_the_page_runs(program, output, folder, daemon, capsys):
    with tcp_port(load_config({"home": str(daemon.home)}).paths.api_socket) as port:
        source = whole(program).replace(PORT, port)
        exec(compile(source, "docs/python-client.md", "exec", dont_inherit=True), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert printed
    assert output in (None, printed)


def test_the_first_inferlet_is_used_from_python(folder, daemon, capsys):
    *_, program = (block.text for block in blocks_of(ROOT / "docs" / "first-inferlet.md") if block.kind == "program")
    (block,) = checked_by(__file__, "docs/first-inferlet.md")
    (folder / "hello" / "main.py").write_text(program)
    exec(compile(block.text, str(block), "exec", dont_inherit=True), {"__name__": "__main__"})
    assert capsys.readouterr().out in ("praise\n", "criticism\n")


async def test_the_web_server_on_the_page(folder):
    scope: dict[str, Any] = {"__name__": "server"}
    exec(compile(SERVER, "docs/python-client.md", "exec", dont_inherit=True), scope)
    app = scope["app"]
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as visitor,
    ):
        assert (await visitor.get("/greet?name=Ann")).json() == ["Hello, Ann!"]


def test_there_are_programs_on_the_page():
    assert len(RUN) >= 8


@pytest.mark.parametrize("cls", [pie_client.PieClient, pie_client.Process])
def test_every_method_is_on_the_page(cls):
    internal = {"request", "open_events", "remember", "forget"}
    for name, value in vars(cls).items():
        if inspect.isfunction(value) and not name.startswith("_") and name not in internal:
            assert f"`{name}(" in PAGE, name


@pytest.mark.parametrize("event", pie_client.Event)
def test_every_event_is_on_the_page(event):
    assert f"`Event.{event.name}`" in PAGE
