"""Each template: made by `pie new`, run on pie-tiny by the command that it names, tested, built, called over HTTP."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from pie_cli.templates import template_names

ROOT = Path(__file__).parents[2]
TEMPLATES = template_names()
Check = Callable[[Any, list[Any]], bool]


def searched(value: Any, messages: list[Any]) -> bool:
    return value["num_branches"] == sum(each["grown"] for each in messages) > 3 and value["score"] < 0


def completed(value: Any, messages: list[Any]) -> bool:
    pieces = [each["choices"][0]["delta"]["content"] for each in messages]
    return "".join(pieces) == value["choices"][0]["message"]["content"] != ""


LOOKS_RIGHT: dict[str, Check] = {
    "agent": lambda value, messages: {"tool": "360"} in messages and value != "",
    "chat": lambda value, messages: "".join(messages) == value != "",
    "custom-decoding": lambda value, messages: "".join(messages) == value["text"] and value["num_tokens"] > 3,
    "http-service": completed,
    "rag-cache": lambda value, messages: value[0]["text"] in messages[0] and value[0]["tokens_read"] < 32,
    "structured": lambda value, messages: value.keys() == {"name", "age", "city"} and value["name"] == "Ann",
    "tree-search": searched,
}
"""What a model makes of it depends on its weights; these hold with all that can follow a template."""


@pytest.fixture(scope="module")
def made(daemon: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, list[str]]]]:
    """The folder of each template's program, and the words behind `pie` that it says to try first."""
    folder, programs = tmp_path_factory.mktemp("programs"), {}
    for template in TEMPLATES:
        shown = daemon.pie("new", str(folder / template), "--template", template).stderr
        command = re.search(r"^run it: pie (.*)$", shown, re.MULTILINE)
        assert command, shown
        programs[template] = (folder / template, shlex.split(command[1]))
    yield programs
    for name in saved_contexts(daemon):
        daemon.pie("context", "remove", name)


def ran(daemon: Any, words: list[str]) -> tuple[Any, list[Any]]:
    """What `pie run` returned, and the messages before."""
    verb, *rest = words
    done = daemon.pie(verb, "--json", *rest)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "return"
    return events[-1]["value"], [each["value"] for each in events if each["event"] == "message"]


def saved_contexts(daemon: Any) -> list[str]:
    """Those of `rag-cache`."""
    found = json.loads(daemon.pie("context", "list", "--json").stdout)["contexts"]
    return [each["name"] for each in found if each["name"].startswith("rag-cache-")]


@pytest.mark.parametrize("template", TEMPLATES)
def test_it_runs(daemon: Any, made: Any, template: str) -> None:
    _, words = made[template]
    assert LOOKS_RIGHT[template](*ran(daemon, words))


def test_their_tests_pass_as_their_workflow_runs_them(daemon: Any, made: Any) -> None:
    folders = [folder for folder, _ in made.values()]
    (text,) = {(folder / ".github" / "workflows" / "test.yml").read_text() for folder in folders}
    (command,) = [
        step["run"] for step in yaml.safe_load(text)["jobs"]["test"]["steps"] if "pie test" in step.get("run", "")
    ]
    words = command.replace("report.xml", str(folders[0].parent / "report.xml")).split()[1:]
    done = daemon.pie(*words, *map(str, folders), "--", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    report = ElementTree.parse(folders[0].parent / "report.xml")
    assert {case.get("classname", "").split(".")[-3] for case in report.iter("testcase")} == {*TEMPLATES}


def test_documents_are_read_in_the_first_run_only(daemon: Any, made: Any) -> None:
    folder, words = made["rag-cache"]
    (first,), _ = ran(daemon, words)
    (again,), _ = ran(daemon, words)
    assert again["tokens_from_cache"] > 64 > again["tokens_read"]
    assert again["text"] == first["text"]
    (folder / "documents" / "more.txt").write_text("The clock costs 49 dollars.")
    (changed,), _ = ran(daemon, words)
    assert changed["tokens_from_cache"] + changed["tokens_read"] > again["tokens_from_cache"] + again["tokens_read"]
    assert len(saved_contexts(daemon)) == 1


def test_the_service_is_called_as_its_readme_says(daemon: Any, made: Any) -> None:
    folder, _ = made["http-service"]
    blocks = re.findall(r"```sh\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    (commands,) = [block for block in blocks if "publish.py" in block]
    commands = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", commands, flags=re.MULTILINE)

    def typed(text: str) -> str:
        done = subprocess.run(text, shell=True, cwd=folder, env=daemon.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    answer = typed(commands)
    assert answer.startswith("published http-service@0.1.0\n")
    assert answer.count("event: message\n") > 1
    returned = json.loads(re.search(r"^event: return\ndata: (.*)$", answer, re.MULTILINE)[1])
    assert returned["choices"][0]["message"]["content"]
    for right, wrong, code in (("user", "robot", "invalid_input"), ("http-service", "x", "not_found")):
        shown = typed(commands.replace(f'"{right}"', f'"{wrong}"'))
        assert f'"code":"{code}"' in shown.replace(" ", "")


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_it_is_typed_and_tidy(made: Any, template: str) -> None:
    folder, _ = made[template]
    modules = [path.name for path in folder.glob("*.py")]
    env = {**os.environ, "MYPYPATH": ":".join(str(ROOT / path) for path in (".", "sdk/python", "sdk/client"))}
    for words in (
        ["mypy", "--strict", "--follow-imports=silent", "--config-file=", *modules],
        ["ruff", "check", "--isolated", "--line-length=120", "--select=E,F,W,I,UP,B,C4,SIM,RUF", "."],
        ["ruff", "format", "--isolated", "--line-length=120", "--check", "."],
    ):
        done = subprocess.run([sys.executable, "-m", *words], cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("template", TEMPLATES)
def test_it_is_built_and_the_component_passes_its_tests(daemon: Any, made: Any, template: str) -> None:
    folder, (verb, target, *words) = made[template]
    built = daemon.pie("build", str(folder), timeout_s=600)
    assert built.returncode == 0, built.stderr
    component = built.stdout.strip()
    assert target == str(folder)
    assert LOOKS_RIGHT[template](*ran(daemon, [verb, component, *words]))
    done = daemon.pie("test", str(folder), "--built", "--", "-p", "no:cacheprovider", timeout_s=600)
    assert done.returncode == 0, done.stdout + done.stderr
