"""Saved contexts over HTTP, through pie_client and `pie context`: listed, taken away in a file, brought in, deleted."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import load, save

from pie_cli.main import invoke
from pie_client import InvalidInput, LimitExceeded, NotFound, PieClient
from pie_engine.config import load_config
from pie_engine.gateway.app import LOCAL_USER
from pie_engine.protocol.sight import Sight
from pie_engine.store.contexts import SavedContexts
from tests.integration.fake_engine import FakeEngine
from tests.integration.raw_http import RawHttp

KV = {"kv": np.arange(1 << 20, dtype=np.float32).reshape(2, -1)}
MODELS = [{"name": "tiny", "driver": "fake", "saved_contexts_mb": 16}]


@pytest.fixture(scope="module")
async def engine():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = FakeEngine(models=MODELS, gateway={"listen": f"127.0.0.1:{port}"})
    running.port = port
    client = await running.start()
    yield running
    await client.close()
    running.remove()


@pytest.fixture
def saved(engine):
    """Those that the daemon has; none in the beginning."""
    shelf = SavedContexts(load_config({"home": str(engine.home)}).paths.saved_contexts)
    yield shelf
    shutil.rmtree(shelf._folder, ignore_errors=True)


@pytest.fixture
async def client(engine):
    async with PieClient(home=engine.home) as connected:
        yield connected


def keep(saved, name, *, model="tiny", user=LOCAL_USER, model_id="fake-1", page_size=16, adapter="", sight=None):
    tokens = list(range(20))
    saved.write(user, model, name, save(KV), model_id=model_id, page_size=page_size, tokens=tokens, meta='{"a": 1}',
                adapter=adapter, adapter_id=adapter, sight=sight, quota_bytes=1 << 30)  # fmt: skip


async def test_contexts_are_listed_and_deleted(client, saved, tmp_path):
    before = time.time()
    keep(saved, "b/1 ?")
    keep(saved, "a", model_id="other")
    keep(saved, "gone", model="former")
    keep(saved, "not mine", user="somebody else")
    listed = await client.contexts()
    assert [(each.model, each.name, each.fits) for each in listed] == [
        ("former", "gone", None),
        ("tiny", "a", False),
        ("tiny", "b/1 ?", True),
    ]
    one = await client.context("b/1 ?")
    assert one in listed
    assert (one.tokens, one.page_size, one.model_id, one.bytes) == (20, 16, "fake-1", len(save(KV)))
    assert before <= one.saved <= time.time()
    assert await client.contexts("former") == listed[:1]
    await client.remove_context("b/1 ?")
    await client.remove_context("gone", model="former")
    assert [each.name for each in await client.contexts()] == ["a"]
    for name in ("b/1 ?", "not mine"):
        for ask in (client.context, client.remove_context, partial(client.export_context, path=tmp_path / "none")):
            with pytest.raises(NotFound, match=f"no context is saved as `{re.escape(name)}"):
                await ask(name)
    assert saved.read("somebody else", "tiny", "not mine").name == "not mine"
    assert not list(tmp_path.iterdir())


async def test_a_context_travels_in_a_file(client, saved, tmp_path):
    keep(saved, "a tale")
    path = tmp_path / "tale.safetensors"
    assert await client.export_context("a tale", path) == path.stat().st_size
    assert np.array_equal(load(path.read_bytes())["kv"], KV["kv"])
    with pytest.raises(InvalidInput, match="is there already"):
        await client.export_context("a tale", path)
    await client.export_context("a tale", path, replace=True)
    with pytest.raises(InvalidInput, match="`a tale` with model tiny already"):
        await client.import_context(path)
    again = await client.import_context(path, "another")
    assert (again.name, again.tokens, again.fits) == ("another", 20, True)
    assert (await client.import_context(path, replace=True)).name == "a tale"
    manifest = saved.read(LOCAL_USER, "tiny", "another")
    assert (manifest.tokens, manifest.meta) == (list(range(20)), '{"a": 1}')
    assert np.array_equal(load(saved.read_blob(LOCAL_USER, "tiny", manifest))["kv"], KV["kv"])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


async def test_files_that_do_not_fit_are_refused(client, saved, tmp_path):
    path = tmp_path / "tale"
    for options, says in (({"model_id": "other"}, "another model"), ({"page_size": 32}, "pages of 32 tokens")):
        keep(saved, "tale", **options)
        await client.export_context("tale", path, replace=True)
        with pytest.raises(InvalidInput, match=says):
            await client.import_context(path, "new")
    keep(saved, "tale")
    await client.export_context("tale", path, replace=True)
    await client.import_context(path, "copy 1")
    await client.import_context(path, "copy 2")
    with pytest.raises(LimitExceeded, match=r"have 12.0 of 16.0 MiB"):
        await client.import_context(path, "copy 3")
    data = path.read_bytes()
    for damaged in (b"", b"hello", data[:-9], data + b"x", data[:-9] + bytes(9)):
        path.write_bytes(damaged)
        with pytest.raises(InvalidInput, match=r"is damaged|is no saved context"):
            await client.import_context(path, "new", replace=True)
    path.write_bytes(data)
    with pytest.raises(NotFound, match="no model is called `huge`"):
        await client.import_context(path, model="huge")
    with pytest.raises(NotFound, match="there is no file"):
        await client.import_context(tmp_path / "missing")
    with pytest.raises(InvalidInput, match="cannot write"):
        await client.export_context("tale", tmp_path / "no" / "folder")
    assert "new" not in [each.name for each in await client.contexts()]
    assert not list(saved._folder.rglob("*.partial"))


async def test_damaged_kv_is_not_sent(client, saved, tmp_path):
    keep(saved, "tale")
    blob = next(saved._folder.rglob("kv-*"))
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(InvalidInput, match="`tale` is damaged"):
        await client.export_context("tale", tmp_path / "tale")
    assert not list(tmp_path.iterdir())


async def test_an_upload_that_is_too_short_leaves_nothing(engine, client, saved, tmp_path):
    keep(saved, "tale")
    await client.export_context("tale", tmp_path / "tale")
    data = (tmp_path / "tale").read_bytes()
    http = RawHttp(engine)
    status, _, text = await http("POST", "/v1/contexts?name=part", data[: len(data) // 2])
    assert (status, json.loads(text)["error"]["code"]) == (400, "invalid_input")
    assert "it ends after" in text
    status, _, text = await http("POST", "/v1/contexts", data)
    assert (status, json.loads(text)["error"]["code"]) == (409, "invalid_input")
    assert not list(saved._folder.rglob("*.partial"))


async def test_a_client_that_goes_away_in_an_upload_leaves_nothing(client, engine, saved, tmp_path, eventually):
    keep(saved, "tale")
    await client.export_context("tale", tmp_path / "tale")
    data = (tmp_path / "tale").read_bytes()
    _, writer = await asyncio.open_unix_connection(str(engine.home / "run" / "api.sock"))
    head = f"POST /v1/contexts?name=part HTTP/1.1\r\nHost: pie\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data[: len(data) // 2])
    await writer.drain()
    await eventually(lambda: list(saved._folder.rglob("*.partial")))
    writer.close()
    await eventually(lambda: not list(saved._folder.rglob("*.partial")))
    assert [each.name for each in await client.contexts()] == ["tale"]


async def test_a_large_file_that_is_refused_at_its_beginning_says_why(client, engine, tmp_path):
    """On either way the reason arrives, though most of the file has not been read then."""
    with (tmp_path / "film").open("wb") as file:
        file.truncate(64 << 20)
    async with PieClient(url=f"http://127.0.0.1:{engine.port}") as other:
        for asking in (client, other):
            with pytest.raises(InvalidInput, match="does not begin with a header of safetensors"):
                await asking.import_context(tmp_path / "film")


def test_what_a_kill_leaves_is_whole(tmp_path):
    """Killed while it writes one version over the other: there is one of them, with its own KV."""
    saved = SavedContexts(tmp_path)
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, tmp_path], stdout=subprocess.PIPE)
        assert writer.stdout.readline()
        time.sleep(random.uniform(0, 0.03))
        writer.kill()
        writer.communicate()
        manifest = saved.read("ann", "m", "tale")
        assert set(saved.read_blob("ann", "m", manifest)) == set(manifest.tokens)
    assert [manifest.name for manifest in saved.list("ann", "m")] == ["tale"]


WRITES_FOR_EVER = """
import itertools, sys
from pathlib import Path
from pie_engine.store.contexts import SavedContexts

for version in itertools.cycle(range(256)):
    SavedContexts(Path(sys.argv[1])).write(
        "ann", "m", "tale", bytes([version]) * (1 << 20), model_id="id", page_size=16, tokens=[version], meta="",
        quota_bytes=1 << 30,
    )
    print(version, flush=True)
"""


async def test_over_tcp(engine, saved, tmp_path):
    keep(saved, "tale")
    async with PieClient(url=f"http://127.0.0.1:{engine.port}") as client:
        await client.export_context("tale", tmp_path / "tale")
        assert (await client.import_context(tmp_path / "tale", "two")).name == "two"


# The command line.


@pytest.fixture
def cli(engine, monkeypatch, capsys):
    monkeypatch.setenv("PIE_HOME", str(engine.home))
    monkeypatch.setenv("PIE_CONFIG", str(engine.home / "config.toml"))

    def run(*words):
        capsys.readouterr()
        code = invoke(["context", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_the_verbs_of_pie_context(cli, saved, tmp_path):
    keep(saved, "tale")
    keep(saved, "old", model_id="other")
    code, out, _ = cli("list")
    lines = [line.split() for line in out.splitlines()]
    assert (code, lines[0]) == (0, ["NAME", "MODEL", "TOKENS", "SIZE", "AGE", "STATE"])
    assert [line[:3] for line in lines[1:]] == [["old", "tiny", "20"], ["tale", "tiny", "20"]]
    assert lines[1][-3:] == ["of", "other", "weights"]
    damaged = next(saved._folder.rglob("old.json"))
    damaged.write_bytes(damaged.read_bytes().replace(b"other", b"fake-1"))
    assert cli("list")[1].splitlines()[1].split() == ["old", "tiny", "-", "-", "-", "cannot", "be", "read"]
    code, _, err = cli("info", "old")
    assert (code, "`old` is damaged" in err) == (2, True)
    assert cli("remove", "old")[0] == 0
    keep(saved, "old", model_id="other", adapter="tone")
    assert cli("list")[1].splitlines()[1].endswith("of other weights or adapter")
    assert "adapter   tone" in cli("info", "old")[1].splitlines()
    code, out, _ = cli("info", "tale")
    assert "tokens    20, in pages of 16" in out.splitlines()
    assert "usable    yes" in out.splitlines()
    assert "sees      everything before each token" in out.splitlines()
    drops, masks = [(9, [(2, 6)])], [(7, [(7, 8)])]
    keep(saved, "seen", sight=Sight(drops=drops, windows=[(0, 8, 4)], jumps=[(5, 9)], masks=masks, gone=[(0, 1)]))
    sees = "a window of 8 and 4 sinks; 4 tokens dropped; 1 with a mask; positions of its own; 1 KV pages out of sight"
    assert f"sees      {sees}" in cli("info", "seen")[1].splitlines()
    assert json.loads(cli("info", "seen", "--json")[1])["sight"] == {
        "window": 8, "sinks": 4, "dropped": 4, "masked": 1, "moved": True, "pages_gone": 1,
    }  # fmt: skip
    assert cli("remove", "seen")[0] == 0
    file = tmp_path / "tale.safetensors"
    assert cli("export", "tale", str(file))[2].startswith(f"wrote {file} (4.0 MiB)")
    code, _, err = cli("export", "tale", str(file))
    assert (code, "is there already" in err) == (2, True)
    assert cli("export", "tale", str(file), "--replace")[0] == 0
    code, _, err = cli("import", str(file), "--name", "two")
    assert (code, err.splitlines()) == (0, ["saved two: 20 tokens of tiny"])
    assert cli("remove", "tale")[::2] == (0, "removed tale\n")
    assert [context["name"] for context in json.loads(cli("list", "--json", "--model", "tiny")[1])["contexts"]] == [
        "old",
        "two",
    ]
    imported = json.loads(cli("import", str(file), "--json")[1])
    assert imported == json.loads(cli("info", "tale", "--json")[1])


def test_what_the_verbs_refuse(cli, saved, tmp_path):
    (tmp_path / "letter").write_text("Dear Sir, " * 9)
    for words, says in (
        (("info", "tale"), "no context is saved as `tale` with model tiny"),
        (("remove", "tale", "--model", "m"), "no context is saved as `tale` with model m"),
        (("export", "tale", str(tmp_path / "tale")), "no context is saved as `tale`"),
        (("import", str(tmp_path / "letter")), "the file is no saved context"),
        (("import", str(tmp_path / "none")), "there is no file"),
    ):
        code, _, err = cli(*words)
        assert (code != 0, says in err) == (True, True), (words, err)
    assert not (tmp_path / "tale").exists()
