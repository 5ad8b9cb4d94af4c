"""Wrong inputs, as a newcomer meets them: golden texts of the real command line and the real daemon."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.golden.transcripts import check, transcript

MAIN = "async def main(prompt: str, max_tokens: int = 16) -> str:\n    return prompt\n"
MANIFEST = '[program]\nname = "wrong"\nversion = "0.1.0"\n'

LONG_PROMPT = """
from inferlet import Context, Sampler


async def main() -> str:
    ctx = Context()
    ctx.user("word " * 20000)
    async for chunk in ctx.generate(Sampler.greedy(), max_tokens=4):
        pass
    return ctx.last_text
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), "utf-8")


PROGRAMS: dict[str, tuple[dict[str, str], list[str]]] = {
    "unknown-manifest-key": (
        {"wrong/pie.toml": MANIFEST + 'entyr = "main"\n', "wrong/main.py": MAIN},
        ["run", "wrong", "hi"],
    ),
    "manifest-syntax": ({"wrong/pie.toml": "[program\n", "wrong/main.py": MAIN}, ["run", "wrong", "hi"]),
    "no-entry-module": ({"wrong/pie.toml": MANIFEST, "wrong/other.py": MAIN}, ["run", "wrong", "hi"]),
    "no-main": ({"wrong.py": "def start():\n    pass\n"}, ["run", "wrong.py"]),
    "syntax-error": ({"wrong.py": "async def main() -> str:\n    return 'open\n"}, ["run", "wrong.py"]),
    "native-import": ({"wrong.py": "import numpy\n\n\n" + MAIN}, ["run", "wrong.py", "hi"]),
    "native-file": (
        {"wrong/pie.toml": MANIFEST, "wrong/main.py": MAIN, "wrong/fast/_core.so": ""},
        ["run", "wrong", "hi"],
    ),
    "wrong-parameter-type": ({"wrong.py": MAIN}, ["run", "wrong.py", "hi", "--max-tokens", "many"]),
    "wrong-input-type": ({"wrong.py": MAIN}, ["run", "wrong.py", "--input", '{"prompt": "hi", "max_tokens": "many"}']),
    "unknown-parameter": ({"wrong.py": MAIN}, ["run", "wrong.py", "--promt", "hi"]),
    "missing-parameter": ({"wrong.py": MAIN}, ["run", "wrong.py"]),
    "no-such-file": ({}, ["run", "./nothing.py"]),
    "no-such-program": ({}, ["run", "nothing"]),
    "prompt-too-long": ({"wrong.py": LONG_PROMPT}, ["run", "wrong.py"]),
    "exception": ({"wrong.py": "async def main() -> int:\n    return 1 // 0\n"}, ["run", "wrong.py"]),
}

SINGLE: dict[str, str] = {
    "forgotten-await": """
        from inferlet import Context

        async def main() -> str:
            ctx = Context()
            ctx.user("Hi")
            text = ctx.generate(max_tokens=4)
            return text.upper()
        """,
    "main-is-not-async": """
        def main(prompt: str = "Hi") -> str:
            return prompt
        """,
    "asyncio-run": """
        import asyncio

        async def work() -> int:
            return 1

        async def main() -> int:
            return asyncio.run(work())
        """,
    "parameter-of-a-type-that-json-lacks": """
        async def main(data: bytes) -> int:
            return len(data)
        """,
    "star-arguments": """
        async def main(*words: str) -> str:
            return " ".join(words)
        """,
    "return-value-is-not-json": """
        async def main() -> object:
            return object()
        """,
    "sent-value-is-not-json": """
        from inferlet import Context, session

        async def main() -> None:
            session.send({"context": Context()})
        """,
    "no-such-module": """
        import reqests

        async def main() -> None: ...
        """,
    "network-library": """
        import socket

        async def main() -> None:
            socket.create_connection(("example.org", 80))
        """,
    "subprocess": """
        import subprocess

        async def main() -> None:
            subprocess.run(["ls"])
        """,
    "thread": """
        import threading

        async def main() -> None:
            threading.Thread(target=print).start()
        """,
    "missing-data-file": """
        async def main() -> str:
            return open("words.txt").read()
        """,
    "write-a-file": """
        async def main() -> None:
            open("out.txt", "w").write("hello")
        """,
    "input-from-a-terminal": """
        async def main() -> str:
            return input("Your name? ")
        """,
    "no-such-model": """
        from inferlet import Context

        async def main() -> str:
            return await Context("gpt-4").generate(max_tokens=4)
        """,
    "no-such-adapter": """
        from inferlet import Context

        async def main() -> str:
            return await Context(adapter="pirate").append("Hi").generate(max_tokens=4)
        """,
    "no-such-saved-context": """
        from inferlet import Context

        async def main() -> int:
            return Context.open("story").length
        """,
    "negative-temperature": """
        from inferlet import Sampler

        async def main() -> None:
            Sampler.temperature(-1)
        """,
    "unknown-option-of-generate": """
        from inferlet import Context

        async def main() -> str:
            ctx = Context()
            ctx.user("Hi")
            return await ctx.generate(temperature=0.7)
        """,
    "text-instead-of-a-sampler": """
        from inferlet import Context

        async def main() -> str:
            ctx = Context()
            ctx.user("Hi")
            return await ctx.generate("greedy", max_tokens=4)
        """,
    "two-replies-at-once": """
        import asyncio
        from inferlet import Context

        async def main() -> list:
            ctx = Context()
            ctx.user("Hi")
            return await asyncio.gather(ctx.generate(max_tokens=4), ctx.generate(max_tokens=4))
        """,
    "released-context": """
        from inferlet import Context

        async def main() -> str:
            with Context() as ctx:
                ctx.user("Hi")
            return await ctx.generate(max_tokens=4)
        """,
    "nothing-to-generate-from": """
        from inferlet import Context

        async def main() -> str:
            return await Context().generate(max_tokens=4)
        """,
    "rewind-too-far": """
        from inferlet import Context

        async def main() -> None:
            ctx = Context()
            ctx.user("Hi")
            stream = ctx.generate(max_tokens=200, ignore_eos=True)
            async for chunk in stream:
                stream.rewind(1000)
        """,
    "invalid-regex": """
        from inferlet import Context, Grammar

        async def main() -> str:
            ctx = Context()
            ctx.user("Hi")
            return await ctx.generate(grammar=Grammar.regex("(a"), max_tokens=4)
        """,
    "invalid-schema": """
        from inferlet import Context, Grammar

        async def main() -> str:
            ctx = Context()
            ctx.user("Hi")
            return await ctx.generate(grammar=Grammar.json_schema({"type": "strnig"}), max_tokens=4)
        """,
    "waits-for-nobody": """
        import asyncio

        async def main() -> None:
            await asyncio.get_running_loop().create_future()
        """,
    "endless-recursion": """
        def down(n: int) -> int:
            return down(n + 1)

        async def main() -> int:
            return down(0)
        """,
    "several-fail-in-a-task-group": """
        import asyncio

        async def check(n: int) -> int:
            await asyncio.sleep(0)
            return 1 // (n % 2)

        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                for n in (0, 1, 2):
                    group.create_task(check(n), name=f"check {n}")
        """,
    "two-of-several-fail-in-gather": """
        import asyncio

        async def check(n: int) -> int:
            return 1 // n

        async def main() -> list:
            return await asyncio.gather(*(check(n) for n in (2, 0, "one", 1)))
        """,
    "more-memory-than-allowed": """
        async def main() -> int:
            return len([bytearray(1 << 20) for _ in range(1000)])
        """,
    "tabs-and-spaces": """
        async def main() -> int:
            if True:
        \treturn 1
        """,
    "undefined-name": """
        async def main() -> str:
            ctx = Context()
            return await ctx.generate()
        """,
    "tool-parameter-that-json-lacks": """
        from inferlet import Context, tool

        @tool
        def add(numbers: bytes) -> int:
            return sum(numbers)

        async def main() -> str:
            ctx = Context(tools=[add])
            ctx.user("Hi")
            return await ctx.generate(max_tokens=4)
        """,
}
"""One file each; wrong as programs of newcomers are."""


@pytest.mark.parametrize("name", SINGLE)
def test_a_mistake_in_a_program(name: str, daemon: Any, tmp_path: Path) -> None:
    write(tmp_path, {"wrong.py": SINGLE[name]})
    check(name, pie(daemon, ["run", "wrong.py"], tmp_path))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_wrong_program_or_input(name: str, daemon: Any, tmp_path: Path) -> None:
    files, words = PROGRAMS[name]
    write(tmp_path, files)
    check(name, pie(daemon, words, tmp_path))


def test_a_missing_model_folder(fresh: Any, tmp_path: Path) -> None:
    check("missing-model-folder", pie(fresh, ["serve", "--model", "./nothing"], tmp_path))


def test_truncated_safetensors(fresh: Any, tmp_path: Path) -> None:
    weights = write_model(tmp_path / "model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    check("truncated-safetensors", pie(fresh, ["serve", "--model", "./model"], tmp_path))


def test_an_unsupported_architecture(fresh: Any, tmp_path: Path) -> None:
    config = write_model(tmp_path / "model") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["MambaForCausalLM"]}))
    check("unsupported-architecture", pie(fresh, ["serve", "--model", "./model"], tmp_path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("unknown-configuration-key", '[[models]]\npth = "pie-tiny"\n'),
        ("setting-out-of-range", "[host]\nnum_hosts = 0\n"),
    ],
)
def test_a_wrong_configuration(name: str, text: str, fresh: Any, tmp_path: Path) -> None:
    fresh.env["PIE_CONFIG"] = str(tmp_path / "config.toml")
    (tmp_path / "config.toml").write_text(text)
    check(name, pie(fresh, ["serve"], tmp_path))
    fresh.env["PIE_CONFIG"] = str(fresh.home / "none.toml")


def test_no_daemon(fresh: Any, tmp_path: Path) -> None:
    check("no-daemon", pie(fresh, ["ps"], tmp_path))


def write_model(folder: Path) -> Path:
    from tests.models import write_checkpoint, write_tokenizer

    write_tokenizer(folder)
    return write_checkpoint(folder)


def pie(daemon: Any, words: list[str], cwd: Path) -> str:
    return transcript(words, env=daemon.env, cwd=cwd, names={daemon.home: "<home>"})
