"""The options of the benches, and the workloads that those of the engines' benches describe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from workloads import CUSTOM, NAMED, Workload

SIZES = ("num_requests", "concurrency", "input_len", "output_len", "temperature", "top_p", "seed")


def bench_parser(doc: str | None) -> argparse.ArgumentParser:
    """Of a bench that says in `doc`, its docstring, what it measures and prints."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json-out", type=Path, metavar="FILE", help="the figures, and the machine")
    return parser


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every engine's bench has: bench, model, machine, workload and result.

    A size that is given goes before the named workload's own.
    """
    parser.add_argument("bench", choices=["latency", "tput"])
    parser.add_argument("--model", default="pie-tiny", help="a folder in Hugging Face format, or pie-tiny")
    parser.add_argument("--device", default="", help="refuse to measure on another device than this one")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--num-threads", type=int, default=0, help="0: as many as the engine chooses")
    parser.add_argument("--kv-memory-mb", type=int, default=2048)
    parser.add_argument("--max-batch-tokens", type=int, default=0, help="of one step; 0: the engine's own default")
    parser.add_argument("--workload", choices=["custom", *NAMED, "all"], default="custom")
    parser.add_argument("--concurrency", type=int)
    parser.add_argument("--num-requests", type=int)
    parser.add_argument("--input-len", type=int, help="tokens of each prompt behind a shared prefix")
    parser.add_argument("--output-len", type=int)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-p", type=float, help="with a temperature")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--interleave", type=int, default=3, metavar="ROUNDS")
    parser.add_argument("--first-round", type=int, default=0, help="rounds of other numbers have other prompts")
    parser.add_argument("--json-out", type=Path, help="one result, or a list of them for --workload all")


def workloads_of(args: argparse.Namespace) -> list[Workload]:
    """What is to be measured, in the order in which it is."""
    if args.workload == "all":
        chosen: Sequence[Workload] = list(NAMED.values())
    else:
        chosen = [NAMED.get(args.workload, CUSTOM)]
    given = {name: value for name in SIZES if (value := getattr(args, name)) is not None}
    return [replace(workload, **given) for workload in chosen]


def rounds_of(args: argparse.Namespace) -> range:
    return range(args.first_round, args.first_round + args.interleave)
