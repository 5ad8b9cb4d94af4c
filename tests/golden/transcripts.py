"""Golden texts: what a person sees in the terminal, word by word.

`tests/golden/NAME.txt` holds a transcript: the command, what it writes, its exit code. Folders of the machine stand as
`<home>` and the like. `PIE_UPDATE_GOLDEN=1` writes the files anew; the diff is what is reviewed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent
TIMEOUT_S = 100
_PROGRESS = re.compile(r"^.* …\n", re.MULTILINE)
"""What is shown while one waits depends on how long one waits."""
UPDATES = bool(os.environ.get("PIE_UPDATE_GOLDEN"))


def transcript(words: list[str], *, env: Mapping[str, str], cwd: Path, names: Mapping[Path, str]) -> str:
    """Run `pie` as a person would and write down what happens; `names` are what folders are called."""
    result = subprocess.run(
        [sys.executable, "-m", "pie_cli", *words],
        cwd=cwd,
        env={**env, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    text = f"$ pie {' '.join(words)}\n{result.stdout}{result.stderr}[exit {result.returncode}]\n"
    return _named(text, {cwd: "<folder>", **names})


def check(name: str, text: str) -> None:
    """Compare with the golden file of this name, or write it."""
    path = FOLDER / f"{name}.txt"
    if UPDATES:
        path.write_text(text, "utf-8")
    assert path.exists(), f"{path} is not there; PIE_UPDATE_GOLDEN=1 writes it"
    assert text == path.read_text("utf-8")


def _named(text: str, names: Mapping[Path, str]) -> str:
    for folder in sorted(names, key=lambda folder: -len(str(folder))):
        text = text.replace(str(folder), names[folder])
    return re.sub(r"process \d+", "process <pid>", _PROGRESS.sub("", text))
