"""What the pages show of files and wire forms is read by what reads the real ones."""

from __future__ import annotations

import configparser
import inspect
import json
import re
import shlex

import msgspec
import pytest
import tomli
import yaml

from inferlet import Context
from pie_client.manifest import read_manifest
from pie_engine.config import decode_config
from pie_engine.errors import ErrorInfo
from pie_engine.gateway.metrics import METRICS
from pie_engine.protocol.program import Bundle, Signature
from tests.commands import complaint
from tests.pages import ROOT, Block, checked_by

BLOCKS = checked_by(__file__)


def blocks(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_is_read_as_the_file_that_it_shows(block, tmp_path):
    if "[program]" not in block.text:
        assert decode_config(tomli.loads(block.text), source=block.page)
        return
    (tmp_path / "pie.toml").write_text(block.text)
    assert read_manifest(tmp_path).name in ("hello", "chat")


@pytest.mark.parametrize(("number", "cls"), list(enumerate((Bundle, Signature, ErrorInfo))))
def test_the_wire_forms_are_those_of_the_protocol(number, cls):
    text = checked_by(__file__, "docs/wire.md")[number].text
    msgspec.json.decode(text, type=cls)
    assert json.loads(text).keys() <= set(cls.__struct_fields__)


def test_the_launch_of_an_ide_attaches_where_the_page_listens():
    (block, *_) = blocks("json")
    at = json.loads(block.text)["connect"]
    assert f"pie debug --listen {at['host']}:{at['port']} --wait" in (ROOT / block.page).read_text("utf-8")


def test_the_service_of_systemd_starts_what_there_is():
    (block,) = blocks("ini")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(block.text)
    assert unit.sections() == ["Service"]
    program, *words = shlex.split(unit["Service"]["ExecStart"])
    assert program.endswith("/pie")
    assert complaint(words) == ""


def test_prometheus_scrapes_the_path_that_there_is():
    (block,) = blocks("yaml")
    (job,) = yaml.safe_load(block.text)["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["127.0.0.1:8765"]
    assert METRICS  # at /metrics, Prometheus' default path


def test_generate_has_the_parameters_that_the_page_shows():
    (block,) = blocks("text")
    head = re.sub(r"\s+", " ", block.text).removeprefix("ctx.generate(").removesuffix(" -> Stream ")
    scope: dict[str, object] = {}
    exec(f"from inferlet import Sampler\ndef generate(self, {head}: ...", scope)
    shown, real = (inspect.signature(each).parameters for each in (scope["generate"], Context.generate))
    assert shown.keys() == real.keys()
    for name, one in shown.items():
        assert (name, one.kind) == (name, real[name].kind)
        assert name == "sampler" or one.default == real[name].default, name
