"""What `pie monitor` costs: processor time at ten updates a second, on a terminal, over a recorded stream.

    python benches/monitor.py [--seconds 20] [--programs 60] [--json-out FILE]

The command runs as a user runs it, on a pseudo-terminal of the given sizes, which reads what it draws. Start-up is
taken off: each size runs for a short and for a long time, and the difference counts.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from options import bench_parser
from report import save

from pie_cli.monitor.recording import Recorder
from tests.loads import Engine

SIZES = ((80, 24), (200, 60))
UPDATE_S = 0.1
WARM_S = 5.0


def record(path: Path, num_programs: int, seconds: float) -> None:
    recorder = Recorder(path)
    for snapshot in Engine("contended", num_programs).stream(round(seconds / UPDATE_S), UPDATE_S):
        recorder.write(snapshot)
    recorder.close()


def cpu_s(recording: Path, size: tuple[int, int], seconds: float, home: str) -> tuple[float, int]:
    """Processor seconds of the command over so many seconds, and how many bytes it wrote to its terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", PIE_HOME=home)
        os.execv(sys.executable, [sys.executable, "-m", "pie_cli", "monitor", "--replay", str(recording)])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    num_bytes = _read(terminal, seconds)
    os.kill(pid, signal.SIGKILL)
    _, _, usage = os.wait4(pid, 0)
    os.close(terminal)
    return usage.ru_utime + usage.ru_stime, num_bytes


def _read(terminal: int, seconds: float) -> int:
    end, num_bytes = time.monotonic() + seconds, 0
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            num_bytes += len(os.read(terminal, 1 << 16))
    return num_bytes


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--programs", type=int, default=60)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "stats.jsonl"
        record(recording, options.programs, WARM_S + options.seconds + 30)
        for size in SIZES:
            begin, few = cpu_s(recording, size, WARM_S, folder)
            end, many = cpu_s(recording, size, WARM_S + options.seconds, folder)
            row = {
                "size": f"{size[0]}x{size[1]}",
                "programs": options.programs,
                "updates_s": 1 / UPDATE_S,
                "core": (end - begin) / options.seconds,
                "bytes_s": (many - few) / options.seconds,
            }
            rows.append(row)
            print(f"{row['size']:>7}  {row['core']:6.1%} of a core  {row['bytes_s'] / 1000:6.1f} kB/s to the terminal")
    save(options.json_out, {"rows": rows})


if __name__ == "__main__":
    main()
