"""The recorded session: a cast that players read, with every step, and nothing of the machine that it was made on."""

from __future__ import annotations

import json
import re
import runpy
from itertools import pairwise
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "session"
LINES = (FOLDER / "session.cast").read_text("utf-8").splitlines()


def plain() -> str:
    text = "".join(json.loads(line)[2] for line in LINES[1:])
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


def test_it_is_asciicast_2() -> None:
    head = json.loads(LINES[0])
    assert (head["version"], head["width"], head["height"]) == (2, 100, 30)
    events = [json.loads(line) for line in LINES[1:]]
    assert all(kind == "o" and isinstance(text, str) for _, kind, text in events)
    assert all(before <= after for (before, *_), (after, *_) in pairwise(events))


def test_every_step_is_in_it() -> None:
    script = runpy.run_path(str(FOLDER / "record.py"))
    # Long lines are broken by the terminal, which says so by control characters of its own.
    shown = re.sub(r"\s+", "", plain())
    for typed, _ in script["STEPS"]:
        assert re.sub(r"\s+", "", typed) in shown
    for said in ("watching hello", "main.py changed", "passed", "(Pdb)", "prefill", "dist/hello-0.1.0.wasm"):
        assert re.sub(r"\s+", "", said) in shown


def test_it_names_no_folder_of_the_machine() -> None:
    assert not re.search(r"(?<![\w~.])/(root|work|tmp|home/\w)", plain())
