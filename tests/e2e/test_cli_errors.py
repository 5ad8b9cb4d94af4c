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
