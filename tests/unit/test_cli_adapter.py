"""`pie adapter`, with a stand-in for the daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_cli import exits
from pie_cli.main import invoke
from pie_engine.config import load_config
from tests.unit.cli_standin import StandIn, short_home

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with short_home(monkeypatch), StandIn(load_config().paths.api_socket) as standin:
        yield standin


def test_an_adapter_is_added_with_its_sizes(daemon: StandIn, capsys: Capture, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(["adapter", "add", "pirate", "here"]) == exits.OK
    said = "added pirate to pie-tiny: rank 8, 3.0 MiB (3.0 MiB for all its adapters)"
    assert said in " ".join(capsys.readouterr().err.split())
    assert daemon.adapters[0]["folder"] == str(tmp_path / "here")
    assert invoke(["adapter", "add", "poet", "/there", "--model", "other"]) == exits.OK
    assert daemon.adapters[1]["model"] == "other"


def test_adapters_are_listed(daemon: StandIn, capsys: Capture) -> None:
    fine = {"name": "a", "model": "m", "rank": 8, "num_bytes": 2 << 20, "folder": "/f", "configured": True}
    broken = {"name": "b", "model": "m", "folder": "/g", "failed": {"code": "not_found", "message": "/g is gone"}}
    daemon.adapters = [fine, broken]
    assert invoke(["adapter", "list"]) == exits.OK
    _, first, second = (line.split() for line in capsys.readouterr().out.splitlines())
    assert first == ["a", "m", "8", "2.0", "MiB", "/f", "configured"]
    assert second == ["b", "m", "-", "-", "/g", "broken:", "/g", "is", "gone"]
    assert invoke(["adapter", "list", "--json"]) == exits.OK
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["adapters"]] == ["a", "b"]


def test_an_adapter_is_removed_once(daemon: StandIn, capsys: Capture) -> None:
    invoke(["adapter", "add", "pirate", "/f"])
    assert invoke(["adapter", "remove", "pirate"]) == exits.OK
    assert "removed pirate" in capsys.readouterr().err
    assert invoke(["adapter", "remove", "pirate"]) != exits.OK
    assert "no adapter called `pirate`" in capsys.readouterr().err
