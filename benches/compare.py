"""All engines that are installed, on the same workloads in turns, and one table.

    python benches/compare.py                        (make bench-cpu)
    python benches/compare.py --shapes 7m --rounds 1 --engines pie llamacpp
    python benches/compare.py --shapes 135m --rounds 2 --json-out FILE --resume     the rounds that FILE lacks

Each round starts each engine anew, warms it up, and runs every workload once, with prompts of its own; the order of the
engines turns from round to round. Only one is up at a time. benches/README.md says how to set the peers up and what is
and is not comparable.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import BenchError, describe_machine
from hf_bench import Transformers
from llamacpp_bench import LlamaCpp
from peer import DEFAULT_PEERS, Peer
from sglang_bench import Sglang
from table import floor_lines, markdown_table
from vllm_bench import Vllm
from workloads import NAMED

HERE = Path(__file__).resolve().parent
CHECKPOINTS = HERE.parent / "build" / "bench-models"
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Contestant:
    """A script and the options that make it this one."""

    script: str
    options: tuple[str, ...] = ()
    peer: Peer | None = None


CONTESTANTS = {
    "pie": Contestant("pie_bench.py", ("--via", "pie")),
    "vllm": Contestant("vllm_bench.py", ("--bind", "pinned"), Vllm()),
    "vllm-nobind": Contestant("vllm_bench.py", ("--bind", "nobind"), Vllm()),
    "sglang": Contestant("sglang_bench.py", (), Sglang()),
    "llamacpp": Contestant("llamacpp_bench.py", (), LlamaCpp()),
    "hf": Contestant("hf_bench.py", (), Transformers()),
}


class Comparison:
    """What has been measured so far."""

    def __init__(self, args: argparse.Namespace, engines: Sequence[str]) -> None:
        self.args = args
        self.engines = list(engines)
        self.figures: dict[str, dict[str, dict[str, list[Any]]]] = {
            shape: {engine: defaultdict(list) for engine in engines} for shape in args.shapes
        }
        self.described: dict[str, Any] = {}
        self.floors: dict[str, Any] = {}
        self.failures: list[str] = []

    def add(self, shape: str, engine: str, results: Sequence[dict[str, Any]]) -> None:
        for result in results:
            (rounds,) = result["runs"].values()
            self.figures[shape][engine][result["workload"]["name"]] += rounds
            self.described[engine] = {**result["engine"], "model": _without_name(result["model"])}
            if "floor" in result:
                self.floors.setdefault(shape, result["floor"])

    def resume(self, kept: dict[str, Any]) -> None:
        """Go on from an earlier result of this machine; of other shapes and engines it must have none."""
        if (cpu := kept["machine"]["cpu"]) != describe_machine()["cpu"]:
            raise BenchError(f"the result to go on from was measured on another machine: {cpu}")
        for shape, by_engine in kept["results"].items():
            for engine, workloads in by_engine.items():
                if engine not in self.figures.get(shape, {}):
                    raise BenchError(f"the result to go on from has {engine} on {shape}, which are not asked for")
                self.figures[shape][engine].update(workloads)
        self.described, self.floors = kept["engines"], kept["floors"]
        self.failures = [failure for failure in kept["failures"] if failure != INTERRUPTED]

    def has(self, shape: str, engine: str, number: int) -> bool:
        """Whether round `number` (from 0) is there. One that failed counts as far as it came."""
        return any(len(rounds) > number for rounds in self.figures[shape][engine].values())

    def as_json(self) -> dict[str, Any]:
        return {
            "bench": "compare",
            "rounds": self.args.rounds,
            "shapes": self.args.shapes,
            "engines": self.described,
            "floors": self.floors,
            "results": self.figures,
            "failures": self.failures,
            "note": self.args.note,
            "machine": describe_machine(),
        }

    def report(self) -> str:
        lines = [markdown_table(self.figures, self.engines), "", *floor_lines(self.floors, self.figures)]
        return "\n".join([*lines, *(f"FAILED {failure}" for failure in self.failures)])


def _without_name(model: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key in ("device", "dtype", "num_threads")}


def installed(names: Sequence[str], peers: Path) -> list[str]:
    """Those of `names` that can run here; says why the others cannot."""
    found = []
    for name in names:
        peer = CONTESTANTS[name].peer
        if peer and (why := peer.missing(peers)):
            print(f"without {name}: {why}", file=sys.stderr)
        else:
            found.append(name)
    return found


def checkpoint(shape: str) -> Path:
    """A random checkpoint of `shape`, made on first use."""
    folder = CHECKPOINTS / shape
    if not (folder / "tokenizer.json").is_file():
        subprocess.run([sys.executable, HERE / "make_checkpoint.py", folder, "--shape", shape], check=True)
    return folder


def run_once(args: argparse.Namespace, name: str, shape: str, number: int) -> tuple[list[dict[str, Any]], int]:
    """All workloads once on one engine: the results, those before a failure too, and the bench's exit status."""
    contestant = CONTESTANTS[name]
    python = contestant.peer.python(args.peers) if contestant.peer else Path(sys.executable)
    with tempfile.TemporaryDirectory(prefix="pie-b-") as folder:
        out = Path(folder) / "result.json"
        command: list[str | Path] = [python, HERE / contestant.script, "tput", *contestant.options]
        command += ["--model", checkpoint(shape), "--dtype", args.dtype, "--num-threads", str(args.num_threads)]
        command += ["--workload", args.workload, "--interleave", "1", "--first-round", str(number), "--json-out", out]
        if contestant.peer:
            command += ["--peers", args.peers]
        status = run_within(command, args.timeout_s)
        found = json.loads(out.read_text()) if out.is_file() else []
    return (found if isinstance(found, list) else [found]), status


def run_within(command: Sequence[str | Path], timeout_s: float) -> int:
    """Run a bench; past its time it is asked to end, so that it ends its server too. Returns the exit status."""
    with subprocess.Popen(command, stdout=sys.stderr) as process:
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            return process.wait()


def compare(args: argparse.Namespace) -> Comparison:
    """Ctrl-C ends it with what has been measured until then."""
    comparison = Comparison(args, installed(args.engines, args.peers))
    if args.resume and args.json_out.is_file():
        comparison.resume(json.loads(args.json_out.read_text()))
    try:
        _measure(args, comparison)
    except KeyboardInterrupt:
        comparison.failures.append(INTERRUPTED)
    return comparison


def _measure(args: argparse.Namespace, comparison: Comparison) -> None:
    for number in range(args.rounds):
        turned = number % max(1, len(comparison.engines))
        for shape in args.shapes:
            for name in comparison.engines[turned:] + comparison.engines[:turned]:
                if comparison.has(shape, name, number):
                    continue
                print(f"-- round {number + 1} of {args.rounds}: {name} on {shape}", file=sys.stderr)
                results, status = run_once(args, name, shape, number)
                comparison.add(shape, name, results)
                if status:
                    comparison.failures.append(f"{name} on {shape}, round {number + 1}: exit status {status}")
                if args.json_out:
                    args.json_out.write_text(json.dumps(comparison.as_json(), indent=2) + "\n")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=["7m", "135m"], default=["7m", "135m"])
    parser.add_argument("--engines", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workload", choices=[*NAMED, "all"], default="all")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32", "auto"])
    parser.add_argument("--num-threads", type=int, default=os.cpu_count(), help="of every engine")
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="where the peers are installed")
    parser.add_argument("--timeout-s", type=float, default=3600, help="of one engine on one shape in one round")
    parser.add_argument("--note", default="", help="kept in the result, for example that the machine was busy")
    parser.add_argument("--json-out", type=Path)
    parser.add_argument("--resume", action="store_true", help="go on from what --json-out holds")
    args = parser.parse_args()
    if args.resume and args.json_out is None:
        parser.error("--resume goes on from the file of --json-out, which is not given")
    return args


def main() -> None:
    args = parse_args()
    try:
        comparison = compare(args)
    except BenchError as error:
        sys.exit(f"error: {error}")
    print(comparison.report())
    sys.exit(1 if comparison.failures else 0)


if __name__ == "__main__":
    main()
