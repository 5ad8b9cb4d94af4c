"""Each template, and each shipped inferlet, through all that a developer does with a program; on pie-tiny."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pie_cli.templates import template_names
from tests.e2e.terminal import OnTerminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
BUILD_S = 800
"""A component is built, and compiled at its first run."""


@dataclass(frozen=True)
class Edit:
    """One that changes what the program asks its host for, and where."""

    file: str
    before: str
    after: str
    call: str = "generate.start"


LONGER = Edit("main.py", "max_tokens=max_tokens", "max_tokens=max_tokens + 1")
EDITS = {
    "custom-decoding": Edit("main.py", "NUM_CANDIDATES = 20", "NUM_CANDIDATES = 21", "forward.start"),
    "tree-search": Edit("branch.py", "max_tokens=num_tokens", "max_tokens=num_tokens + 1"),
}
GREEDY = {
    "best-of-n": ("--temperature", "0"),
    "chat": ("--temperature", "0"),
    "http-service": ("--temperature", "0", "--no-stream"),
    "tree-search": ("--temperature", "0"),
}
"""Options with which a program says the same each time, in the same pieces."""
TALKING = ("chat", "inferlet-chat")
"""Those that answer messages when they are given nothing else."""
OF_THE_CACHE = ("spent", "tokens_from_cache", "tokens_read")
"""In results: what depends on what is in the cache."""
LOOK = "scheduling.finish-look"
"""Tells how long the last step took: another result each time."""
SHIPPED = {
    "background": ("--documents", "The lamp costs 35 dollars.", "--questions", "What is the capital of France?"),
    "best-of-n": ("--prompt", "Hello!", "--n", "3"),
    "chat": ("--prompt", "Hello!"),
    "react": ("--question", "What is 12 + 30?"),
}


@dataclass(frozen=True)
class Program:
    """A program in a folder of its own, at which nobody else looks."""

    daemon: Any
    folder: Path
    words: tuple[str, ...]
    """Its input, as options of `pie run`."""
    edit: Edit

    def pie(self, verb: str, *words: str, code: int = 0, input_text: str = "") -> Any:
        done = self.daemon.pie(verb, *words, timeout_s=BUILD_S, input_text=input_text)
        assert done.returncode == code, (verb, words, done.stdout, done.stderr)
        return done

    def run(self, *options: str, target: str | Path = "") -> Any:
        return self.pie("run", *options, str(target or self.folder), *self.words)

    def returned(self, verb: str = "run", target: str | Path = "") -> tuple[Any, str]:
        """What it returned, and the texts among what it sent."""
        done = self.pie(verb, "--json", str(target or self.folder), *self.words)
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert events[-1]["event"] == "return", done.stdout
        sent = [each["value"] for each in events if each["event"] == "message"]
        return settled(events[-1]["value"]), "".join(each for each in sent if isinstance(each, str))

    def change(self) -> None:
        file = self.folder / self.edit.file
        text = file.read_text()
        assert text.count(self.edit.before) == 1
        file.write_text(text.replace(self.edit.before, self.edit.after))


def settled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: settled(each) for name, each in value.items() if name not in OF_THE_CACHE}
    return [settled(each) for each in value] if isinstance(value, list) else value


def shipped_names() -> list[str]:
    return sorted(each.parent.name for each in (ROOT / "inferlets").glob("*/pie.toml"))


@pytest.fixture(params=[*template_names(), *(f"inferlet-{name}" for name in shipped_names())])
def program(daemon: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Program]:
    """A template as `pie new` makes it, with the words that its README says first, or an inferlet of the repository."""
    name = request.param.removeprefix("inferlet-")
    folder, edit, greedy = tmp_path / name, EDITS.get(name, LONGER), GREEDY.get(name, ())
    if request.param in template_names():
        shown = daemon.pie("new", str(folder), "--template", name).stderr
        command = re.search(r"^run it: pie run (.*)$", shown, re.MULTILINE)
        assert command, shown
        _, *words = shlex.split(command[1])
    else:
        # Their tests run as source and as component where they are: `inferlets/conftest.py`.
        shutil.copytree(ROOT / "inferlets" / name, folder, ignore=shutil.ignore_patterns("tests"))
        words = [*SHIPPED[name]]
    made = Program(daemon, folder, (*words, *greedy), edit)
    made.run()  # what it saves is saved, and its compiled code is stored
    yield made
    for context in json.loads(daemon.pie("context", "list", "--json").stdout)["contexts"]:
        if context["name"].startswith(f"{name}-"):
            daemon.pie("context", "remove", context["name"])


def did_the_same(diff: str) -> bool:
    """As `pie diff` says it, whose exit code was 0: the same calls, and the same end."""
    differing = set(re.findall(r" ([a-z-]+\.[a-z-]+)\(", diff))
    return differing == {LOOK} or "the calls, their results and the end are the same" in diff


def departed_at(shown: str) -> int:
    found = re.search(r"(?:, at|they first depart at) call (\d+)$", shown, re.MULTILINE)
    assert found, shown
    return int(found[1])


def test_a_save_runs_it_again(program: Program) -> None:
    with OnTerminal(program.daemon, "run", "--watch", str(program.folder), *program.words) as shell:
        shell.until("`q` quits\n")
        shell.until(" s\n")
        with (program.folder / program.edit.file).open("a") as file:
            file.write('print("edited")\n')
        assert f"{program.edit.file} changed\nedited\n" in shell.until("edited\n")
        shell.until(" s\n")
        shell.press("q")
        assert shell.end() == 0


def test_it_is_recorded_replayed_and_compared(program: Program, tmp_path: Path) -> None:
    before, after = str(tmp_path / "before.rec"), str(tmp_path / "after.rec")
    ran = program.run("--record", before)
    for words in ((before,), (before, str(program.folder))):
        again = program.pie("replay", *words)
        assert again.stdout == ran.stdout
        assert again.stderr.endswith(" as recorded\n")
    tested = ("--replay", before, str(program.folder), "--", "-p", "no:cacheprovider")
    program.pie("test", *tested)
    program.run("--record", after)
    assert did_the_same(program.pie("diff", before, after).stdout)

    program.change()
    shown = program.pie("replay", before, str(program.folder), code=1).stderr
    made, recorded = re.findall(r"^  (?:program |recording) +(\S+):\d+ in \w+: (\S+)\(", shown, re.MULTILINE)
    assert made == recorded == (program.edit.file, program.edit.call)
    program.run("--record", after)
    assert departed_at(program.pie("diff", before, after, code=1).stdout) == departed_at(shown)
    assert f"at call {departed_at(shown)}" in program.pie("test", *tested, code=1).stdout


def test_its_profile_is_shown_traced_and_made_a_page(program: Program, tmp_path: Path) -> None:
    trace, page = tmp_path / "trace.json", tmp_path / "page.html"
    shown = program.run("--profile", "--trace", str(trace)).stderr
    name = program.folder.name
    title = re.search(rf"^profile of {name}@0\.1\.0: .*$", shown, re.MULTILINE)
    assert title, shown
    shares = [int(share) for share in re.findall(r" +(\d+) %  █*", shown.partition("tokens ")[0])]
    assert 95 <= sum(shares) <= 105
    slowest = shown.partition("slowest awaits\n")[2]
    assert re.search(r"\.py:\d+ in \w+  ", slowest), shown
    assert title[0] in program.pie("profile", str(trace)).stdout
    assert title[0] in program.pie("profile", "last").stdout
    assert {event["ph"] for event in json.loads(trace.read_text())["traceEvents"]} >= {"X", "M"}
    program.pie("profile", str(trace), str(page))
    assert name in page.read_text()
    assert not re.search(r"""(?:src|href)=["']?https?:""", page.read_text())


def test_under_the_debugger_it_says_and_returns_the_same(program: Program) -> None:
    assert program.returned("debug") == program.returned("run")


def test_it_is_developed_in_place(program: Program) -> None:
    name = program.folder.name
    with OnTerminal(program.daemon, "dev", str(program.folder), "--name", f"{name}-dev") as shell:
        shell.until(f"serving {name}-dev@")
        first = program.run(target=f"{name}-dev")
        assert first.stderr.startswith(f"note: running the uploaded {name}-dev@")
        shell.until(" ended: return")
        with (program.folder / program.edit.file).open("a") as file:
            file.write('print("edited")\n')
        shell.until(" changed")
        shell.until(f"serving {name}-dev@")
        assert "edited\n" in program.run(target=f"{name}-dev").stdout
        shell.press("q")
        assert shell.end() == 0


@pytest.mark.parametrize("program", TALKING, indirect=True)
def test_it_talks_for_as_long_as_its_client_does(program: Program) -> None:
    name = f"{program.folder.name}-dev"
    with OnTerminal(program.daemon, "dev", str(program.folder), "--name", name) as dev:
        dev.until(f"serving {name}@")
        pid = program.pie("run", "--detach", name, "--temperature", "0").stdout.strip()
        dev.until(f"{pid} began")
        with OnTerminal(program.daemon, "attach", pid) as client:
            client.press("Hello!\n")
            client.until("Hello!\n")  # as it is typed
            first = client.until("\n")
            assert len(first) > 1
            client.press("\x03")
            client.until("detached")
            assert client.end() == 130
        program.change()
        dev.until("those that run finish on their version: 1 on ")
        program.pie("send", pid, "What is the capital of France?")
        with OnTerminal(program.daemon, "logs", "-f", pid) as log:
            log.until(first)
            second = log.until("\n")
            program.pie("send", pid, "Bye!", "--end")
            third = log.until("\n")
            assert log.end() == 0
        assert program.pie("logs", pid).stdout == first + second + third
        dev.until(f"{pid} ended: return")
        dev.press("q")
        assert dev.end() == 0


@pytest.mark.parametrize("program", TALKING, indirect=True)
def test_at_a_terminal_it_is_a_conversation(program: Program) -> None:
    words = "run", str(program.folder), "--temperature", "0"
    answers = program.pie(*words, input_text="Hello!\nBye!\n").stdout.splitlines(keepends=True)
    assert answers[0].strip() == program.pie(*words, "Hello!").stdout.strip()
    with OnTerminal(program.daemon, *words) as shell:
        shell.until("Ctrl-D ends it\n")
        for said, answer in zip(("Hello!", "Bye!"), answers, strict=True):
            shell.press(f"{said}\n")
            assert shell.until(answer).endswith(f"{said}\n{answer}")
        shell.press("\x04")
        assert shell.end() == 0


def test_as_a_component_it_is_inspected_and_does_the_same(program: Program, tmp_path: Path) -> None:
    file, folder = str(tmp_path / "it.wasm"), str(program.folder)
    assert program.pie("build", folder, "-o", file).stdout == f"{file}\n"
    facts = json.loads(program.pie("inspect", file, "--json").stdout)
    assert (facts["kind"], facts["fits"], facts["manifest"]["name"]) == ("component", True, program.folder.name)
    assert program.returned(target=file) == program.returned()
    source, component = str(tmp_path / "source.rec"), str(tmp_path / "component.rec")
    program.run("--record", source)
    ran = program.run("--record", component, target=file)
    assert program.pie("replay", component).stdout == ran.stdout
    assert did_the_same(program.pie("diff", source, component).stdout)
    assert f"profile of {program.folder.name}@" in program.run("--profile", target=file).stderr
