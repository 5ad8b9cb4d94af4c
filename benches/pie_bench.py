"""Latency and throughput of the engine, bare and through everything, and the difference: the programmability tax.

    python benches/pie_bench.py latency --concurrency 16 --num-requests 16 --via both --interleave 5
    python benches/pie_bench.py tput --num-requests 64 --json-out result.json
    python benches/pie_bench.py latency --tier pass --via both
    python benches/pie_bench.py tput --via pie --workload fork

`latency` sends waves of `--concurrency` requests, each after the last one has ended; `tput` keeps that many in flight.
Prompts are random token ids, replies are exactly `--output-len` tokens long.

--via core   the bare engine loop in this process: no WebAssembly, no host, no gateway
--via pie    a daemon of its own, and one inferlet for each request; times are those at the client
--via both   both, taking turns `--interleave` times; the tax compares the times per token while a whole wave decodes

--tier plan  one `ctx.generate` a request; --tier pass: one `ctx.forward` a token

--workload   sizes by name, those that the peers are compared by; `fork` and `interference` need --via pie
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from bandwidth import Floor, floor_of
from bare_core import BareCore
from common import (
    BenchError,
    Wave,
    describe_machine,
    exit_on_sigterm,
    figures_of_round,
    require_exact_counts,
    require_room,
    summary_ms,
    tpot_of_full_batch_s,
)
from options import add_options, rounds_of, workloads_of
from own_daemon import own_daemon
from report import print_rounds, write_json
from whole_pie import WholePie
from workloads import Workload

from pie_engine.config import ModelSection
from pie_engine.errors import PieError
from pie_engine.hub.places import resolve

Engines = dict[str, BareCore | WholePie]
Measured = dict[str, list[list[Wave]]]
"""Of each engine, the waves of each round."""


def measure(engines: Engines, workload: Workload, rounds: range, in_waves: bool) -> Measured:
    """The engines take turns, round by round."""
    measured: Measured = {name: [] for name in engines}
    for engine in engines.values():
        engine.run(workload.warm_up(), in_waves=True)
    for number in rounds:
        for name, engine in engines.items():
            waves = engine.run(workload.in_round(number), in_waves=in_waves)
            require_exact_counts(waves, workload)
            measured[name].append(waves)
            print(f"{workload.name}: round {number + 1} of {rounds.stop} via {name}", file=sys.stderr)
    return measured


def tax_of(measured: Measured) -> dict[str, object]:
    """Time per token via pie against the bare loop, round by round, while whole waves decode."""
    tpot_ms = {
        name: [1e3 * statistics.fmean(tpot_of_full_batch_s(wave) for wave in waves) for waves in rounds]
        for name, rounds in measured.items()
    }
    percents = [100 * (pie / core - 1) for core, pie in zip(tpot_ms["core"], tpot_ms["pie"], strict=True)]
    if any(math.isnan(percent) for percent in percents):
        return {"note": "no time in which a whole wave decoded: raise --output-len"}
    return {
        "core_tpot_ms": [round(value, 3) for value in tpot_ms["core"]],
        "pie_tpot_ms": [round(value, 3) for value in tpot_ms["pie"]],
        "percent_median": round(statistics.median(percents), 2),
        "percent_min": round(min(percents), 2),
        "percent_max": round(max(percents), 2),
    }


def results_of(
    args: argparse.Namespace, workload: Workload, engines: Engines, measured: Measured, floor: Floor | None
) -> dict[str, object]:
    runs = {
        name: [figures_of_round(waves, workload) for waves in rounds]  # one entry a round, so that the spread is there
        for name, rounds in measured.items()
    }
    first = next(iter(engines.values()))
    overhead_s = first.overhead_s if isinstance(first, BareCore) else []
    has_tax = args.bench == "latency" and len(measured) == 2
    return {
        "bench": args.bench,
        "engine": {"name": "pie"},
        "tier": args.tier,
        "workload": asdict(workload),
        "model": {"name": model_name(args), "num_pages": first.num_pages, **first.capabilities},
        "runs": runs,
        "loop_overhead_ms": summary_ms(overhead_s),
        **({"floor": floor.as_json()} if floor else {}),
        **({"tax": tax_of(measured)} if has_tax else {}),
        "machine": describe_machine(),
    }


def print_report(results: dict[str, Any]) -> None:
    """The figures for people; each is the median over the rounds."""
    print_rounds(results)
    if overhead := results["loop_overhead_ms"]:
        rows = results["workload"]["concurrency"]
        print(f"loop besides the driver: {1e3 * overhead['p50']:.0f} µs a step of {rows} rows (p50)")
    tax = results.get("tax", {})
    if "percent_median" in tax:
        spread = f"{tax['percent_min']:+.1f} … {tax['percent_max']:+.1f} %"
        print(f"tax on the time per token in a full batch: {tax['percent_median']:+.1f} % ({spread})")
    elif tax:
        print(tax["note"])


def model_name(args: argparse.Namespace) -> str:
    """What the results call the model: never a path of this machine."""
    return Path(args.model).name


def section_of(args: argparse.Namespace) -> ModelSection:
    path = str(Path(args.model).resolve()) if Path(args.model).is_dir() else args.model
    section = ModelSection(
        path=path,
        name=model_name(args),
        driver=args.driver,
        dtype=args.dtype,
        kernels=args.kernels,
        num_threads=args.num_threads,
        kv_memory_mb=args.kv_memory_mb,
    )
    if args.max_batch_tokens:
        section = msgspec.structs.replace(section, max_batch_tokens=args.max_batch_tokens)
    return section


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--via", choices=["core", "pie", "both"], default="core")
    parser.add_argument("--tier", choices=["plan", "pass"], default="plan")
    parser.add_argument("--kernels", choices=["auto", "compiled", "torch"], default="auto")
    parser.add_argument("--driver", choices=["cpu", "cuda", "fake"], default="cpu")
    return parser.parse_args(arguments)


def start_engines(args: argparse.Namespace, stack: ExitStack) -> Engines:
    section = section_of(args)
    engines: Engines = {}
    if args.via != "pie":
        core = engines["core"] = BareCore(section, args.tier)
        # The same number of threads for both: each would measure and choose for itself.
        section = msgspec.structs.replace(section, num_threads=core.capabilities["num_threads"])
    if args.via != "core":
        engines["pie"] = WholePie(stack.enter_context(own_daemon(section)).home, args.tier)
    device = next(iter(engines.values())).capabilities["device"]
    if args.device not in ("", device):
        raise SystemExit(f"driver {args.driver} runs on {device}, not on {args.device}")
    return engines


def run(args: argparse.Namespace) -> None:
    """Print and write each workload's result as soon as it is there."""
    workloads = workloads_of(args)
    if args.via != "pie" and (unfit := [workload.name for workload in workloads if workload.needs_client]):
        raise SystemExit(f"--workload {unfit[0]} is measured through a daemon: --via pie")
    results = []
    with ExitStack() as stack:
        engines = start_engines(args, stack)
        capabilities = next(iter(engines.values())).capabilities
        for workload in workloads:
            require_room(workload, capabilities["max_context_tokens"])
            measured = measure(engines, workload, rounds_of(args), in_waves=args.bench == "latency")
            floor = None
            if workload.is_single_stream and capabilities["device"] == "cpu" and capabilities["driver"] == "cpu":
                floor = floor_of(resolve(args.model), capabilities["dtype"], capabilities["num_threads"])
            results.append(results_of(args, workload, engines, measured, floor))
            print_report(results[-1])
            write_json(args.json_out, results)


def main() -> None:
    args = parse_args()
    exit_on_sigterm()
    try:
        run(args)
    except PieError as error:
        raise SystemExit(f"{error.message}\nhint: {error.hint}" if error.hint else error.message) from error
    except BenchError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
