"""What the bench of every peer does: start it, ask for the workloads, check the counts, tell the figures."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bandwidth import Floor, floor_of
from common import BenchError, Wave, describe_machine, figures_of_round, require_exact_counts, require_room
from load import Engine, run_workload
from options import add_options, rounds_of, workloads_of
from report import print_rounds, write_json
from workloads import Workload

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_PEERS = ROOT / "build" / "peers"
PIE_TINY = ROOT / "pie_engine" / "model" / "tiny" / "weights"


class Peer(ABC):
    """One engine to compare with."""

    name: str
    device = "cpu"

    def add_options(self, parser: argparse.ArgumentParser) -> None:  # noqa: B027 (most have none)
        """Options that only this peer has."""

    def python(self, peers: Path) -> Path:
        """What the bench itself runs with; servers have their own."""
        return Path(sys.executable)

    @abstractmethod
    def missing(self, peers: Path) -> str:
        """Why it cannot run here, or nothing."""

    @abstractmethod
    @contextmanager
    def serve(self, args: argparse.Namespace, folder: Path) -> Iterator[Engine]:
        """The engine with the model in `folder` loaded, until the end of the block."""

    @abstractmethod
    def describe(self, args: argparse.Namespace) -> dict[str, object]:
        """Version and settings, for the results."""


def python_of(peers: Path, name: str) -> Path:
    """The interpreter of a peer's virtual environment."""
    return peers / name / ".venv" / "bin" / "python"


def num_threads_of(args: argparse.Namespace) -> int:
    """What a peer gets: all cores unless it is told otherwise."""
    return args.num_threads or os.cpu_count() or 1


def dtype_of(args: argparse.Namespace, folder: Path) -> str:
    """The dtype to compute in; `auto` is the checkpoint's."""
    if args.dtype != "auto":
        return args.dtype
    config = read_config(folder)
    return config.get("dtype") or config.get("torch_dtype") or "float32"


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json, of its text part where it has several."""
    raw = json.loads((folder / "config.json").read_text("utf-8"))
    return raw | raw.get("text_config", {})


def model_folder(model: str) -> Path:
    """Raises `SystemExit` unless it is a checkpoint in Hugging Face format, or `pie-tiny`."""
    folder = PIE_TINY if model == "pie-tiny" else Path(model)
    if not (folder / "config.json").is_file():
        raise SystemExit(f"{model} is no folder with a config.json\nhint: python benches/make_checkpoint.py FOLDER")
    return folder.resolve()


async def run_rounds(
    engine: Engine, workload: Workload, vocab_size: int, rounds: range, in_waves: bool
) -> list[list[Wave]]:
    """The waves of each round."""
    await run_workload(engine, workload.warm_up(), vocab_size, in_waves=True)
    measured = []
    for number in rounds:
        waves = await run_workload(engine, workload.in_round(number), vocab_size, in_waves=in_waves)
        require_exact_counts(waves, workload)
        measured.append(waves)
        print(f"{workload.name}: round {number + 1} of {rounds.stop}", file=sys.stderr)
    return measured


def results_of(
    peer: Peer,
    args: argparse.Namespace,
    folder: Path,
    workload: Workload,
    measured: list[list[Wave]],
    floor: Floor | None,
) -> dict[str, Any]:
    """As pie_bench.py's."""
    return {
        "bench": args.bench,
        "engine": {"name": peer.name, **peer.describe(args)},
        "workload": asdict(workload),
        "model": {
            "name": Path(args.model).name,
            "device": peer.device,
            "dtype": dtype_of(args, folder),
            "vocab_size": read_config(folder)["vocab_size"],
            "num_threads": num_threads_of(args),
        },
        "runs": {peer.name: [figures_of_round(waves, workload) for waves in measured]},
        **({"floor": floor.as_json()} if floor else {}),
        "machine": describe_machine(),
    }


async def measure(peer: Peer, args: argparse.Namespace, folder: Path) -> None:
    """Print and write each workload's result as soon as it is there."""
    workloads, config = workloads_of(args), read_config(folder)
    for workload in workloads:
        require_room(workload, config["max_position_embeddings"])
    # Before the server is there to disturb it.
    floor = None
    if peer.device == "cpu" and any(workload.is_single_stream for workload in workloads):
        floor = floor_of(folder, dtype_of(args, folder), num_threads_of(args))
    results = []
    with peer.serve(args, folder) as engine:
        for workload in workloads:
            measured = await run_rounds(
                engine, workload, config["vocab_size"], rounds_of(args), args.bench == "latency"
            )
            of_single = floor if workload.is_single_stream else None
            results.append(results_of(peer, args, folder, workload, measured, of_single))
            print_rounds(results[-1])
            write_json(args.json_out, results)


def main(peer: Peer, description: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """The command of a peer's bench."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="where the peers are installed")
    parser.add_argument("--server-log", type=Path, help="keep what the peer's server prints")
    peer.add_options(parser)
    args = parser.parse_args(arguments)
    if missing := peer.missing(args.peers):
        raise SystemExit(f"{missing}\nhint: benches/README.md says how to set {peer.name} up")
    if args.device not in ("", peer.device):
        raise SystemExit(f"{peer.name} runs on {peer.device} here, not on {args.device}")
    try:
        asyncio.run(measure(peer, args, model_folder(args.model)))
    except BenchError as error:
        raise SystemExit(f"{peer.name}: {error}") from error
