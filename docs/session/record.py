"""Records a terminal session, from `pie new` to `pie build`, as an asciinema cast: python docs/session/record.py

It types into a real shell and waits for what the commands write, in a home and a folder of its own. The file is
asciicast v2 (https://docs.asciinema.org/manual/asciicast/v2/): `asciinema play docs/session/session.cast`. Pauses that
are longer than `MAX_PAUSE_S` are shortened, since nobody wants to watch a build.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

HERE = Path(__file__).parent
COLUMNS, ROWS = 100, 30
KEY_S = 0.035
THINK_S = 0.9
MAX_PAUSE_S = 2.0
TIMEOUT_S = 300
PROMPT = "$ "

Step = tuple[str, str]
"""What is typed, and the regular expression of what is waited for then."""

QUESTION = '"Tell me about a fox." --max-tokens 24 --temperature 0'
AT_PROMPT = r"(^|\n)\$ $"
EDIT = "sed -i 's/helpful assistant/terse poet/' hello/main.py"
IN_ANOTHER_WINDOW = ""
"""Nothing is typed: `EDIT` is run."""
STEPS: list[Step] = [
    ("pie new hello\n", AT_PROMPT),
    (f"pie run hello {QUESTION}\n", AT_PROMPT),
    (f"# While it is watched, another window runs: {EDIT}\n", AT_PROMPT),
    (f"pie run --watch hello {QUESTION}\n", r"watching hello"),
    (IN_ANOTHER_WINDOW, r"main\.py changed(.|\n)*tokens/s"),
    ("q", AT_PROMPT),
    ("pie test hello\n", AT_PROMPT),
    ("sed -i 's/        ctx.user(message)/&\\n        breakpoint()/' hello/main.py\n", AT_PROMPT),
    (f"pie debug hello {QUESTION}\n", r"\(Pdb\) $"),
    ("p ctx.length, ctx.messages[-1]\n", r"\(Pdb\) $"),
    ("c\n", AT_PROMPT),
    ("sed -i '/breakpoint/d' hello/main.py\n", AT_PROMPT),
    (f"pie run --profile hello {QUESTION}\n", AT_PROMPT),
    ("pie build hello\n", AT_PROMPT),
    ("pie run hello/dist/hello-0.1.0.wasm 'Hi' --max-tokens 16 --temperature 0\n", AT_PROMPT),
    ("pie stop\n", AT_PROMPT),
]


class Recorder:
    """A shell in a terminal, and everything that it writes with its time."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.events: list[tuple[float, str]] = []
        self._seen = ""
        self._last = time.monotonic()
        self._clock = 0.0
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environ)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def type(self, text: str) -> None:
        """As a person does."""
        for character in text:
            os.write(self._terminal, character.encode())
            self._listen(KEY_S)

    def expect(self, pattern: str) -> None:
        """Wait for it. Raises `TimeoutError` with what was there instead."""
        end = time.monotonic() + TIMEOUT_S
        while not re.search(pattern, _plain(self._seen)):
            if time.monotonic() > end:
                raise TimeoutError(f"waited for {pattern!r}; the terminal shows:\n{self._seen[-2000:]}")
            self._listen(0.05)
        self._listen(THINK_S)
        self._seen = ""

    def close(self) -> None:
        os.kill(self._pid, signal.SIGHUP)
        os.waitpid(self._pid, 0)

    def _listen(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._terminal], [], [], left)[0]:
                return
            text = os.read(self._terminal, 65536).decode("utf-8", "replace")
            now = time.monotonic()
            self._clock += min(now - self._last, MAX_PAUSE_S)
            self._last = now
            self._seen += text
            self.events.append((round(self._clock, 3), text))


def _plain(text: str) -> str:
    """Without colours and carriage returns."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


def record(folder: Path) -> list[tuple[float, str]]:
    """Run the session in `folder`."""
    environ = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "PIE_HOME": str(folder / "home"),
        "PIE_CACHE": os.environ.get("PIE_CACHE", str(Path.home() / ".cache" / "pie")),
        "PS1": PROMPT,
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        # Of other plugins that this environment happens to have.
        "PYTHONWARNINGS": "ignore",
    }
    work = folder / "work"
    work.mkdir()
    recorder = Recorder(work, environ)
    try:
        recorder.expect(r"\$ $")
        recorder.events.clear()
        for typed, expected in STEPS:
            if typed == IN_ANOTHER_WINDOW:
                subprocess.run(EDIT, shell=True, check=True, cwd=work)
            recorder.type(typed)
            recorder.expect(expected)
    finally:
        recorder.close()
        subprocess.run([sys.executable, "-m", "pie_cli", "stop"], env=environ, capture_output=True)
    return [(at, text.replace(str(folder), "~")) for at, text in recorder.events]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "session.cast")
    folder = Path(tempfile.mkdtemp(prefix="pie-c-"))
    arguments = parser.parse_args()
    try:
        events = record(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    head = {
        "version": 2,
        "width": COLUMNS,
        "height": ROWS,
        "title": "Pie: new, run --watch, test, debug, profile, build",
    }
    lines = [json.dumps(head), *(json.dumps([at, "o", text], ensure_ascii=False) for at, text in events)]
    arguments.out.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
