"""What fewer bits bring and cost: decode steps, prefill, memory and loss, from bf16 to four bits.

    python benches/precision.py [FOLDER | --shape 135m|7m|tiny] [--peers DIR] [--json-out FILE]

bf16, int8 and int4 quantized on load, and GGUF files of Q8_0, Q6_K and Q4_K, which `make_gguf.py` makes of the same
checkpoint. Times are the least of many, of all precisions in turns, in CPU time of the thread, which other processes
disturb least; wall time with more than one. The floor of a step is reading all weights once, at the bandwidth that is
measured just before.

The loss is that of pie-tiny on held-out examples, which its training never saw: the mean of -ln p(token), its
exponential, and the mean of KL(bf16 || this) over the distributions of the next token.

With `--peers`, llama.cpp's own bench runs the same files at the same number of threads; its times are wall time.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from bandwidth import read_bandwidth
from make_checkpoint import SHAPES, write_checkpoint
from make_gguf import write_gguf
from options import bench_parser
from report import save
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from pie_engine.driver.base import Row
from pie_engine.driver.cpu import CpuDriver
from pie_engine.hub.places import resolve
from pie_engine.model.gguf_file.folder import folder_for
from pie_engine.model.quantization import Quantization
from pie_engine.model.span import Span
from pie_engine.model.tiny.chat_format import segments
from pie_engine.model.tiny.corpus import examples
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.sampling import GREEDY

PAGE = 16
MAX_TOKENS = 512
"""Of a held-out text."""
LLAMA_BENCH = Path("llamacpp/llama.cpp/build/bin/llama-bench")


@dataclass(frozen=True)
class Precision:
    """How weights are kept."""

    name: str
    quantize: Quantization = "none"
    gguf: str = ""
    """The type of a GGUF file; none: the checkpoint as it is."""

    def load(self, checkpoint: Path, work: Path, kernels: str, num_threads: int) -> CpuDriver:
        """A driver of the checkpoint; files are made in `work`."""
        folder = folder_for(self.file(checkpoint, work), work) if self.gguf else checkpoint
        return CpuDriver.load(
            folder,
            dtype="bfloat16",
            quantize=self.quantize,
            kernels=kernels,  # type: ignore[arg-type]
            num_threads=num_threads,
        )

    def file(self, checkpoint: Path, work: Path) -> Path:
        path = work / f"{checkpoint.name}-{self.gguf}.gguf"
        return path if path.is_file() else write_gguf(checkpoint, path, self.gguf)


PRECISIONS = (
    Precision("bf16"),
    Precision("int8", quantize="int8"),
    Precision("int4", quantize="int4"),
    *(Precision(kind, gguf=kind) for kind in ("Q8_0", "Q6_K", "Q4_K")),
)
PEER_TYPES = {"bf16": "BF16", "Q8_0": "Q8_0", "Q6_K": "Q6_K", "Q4_K": "Q4_K"}


@dataclass(frozen=True)
class Sizes:
    """What is timed, as far as the model's context goes."""

    decode: tuple[tuple[int, int], ...] = ((1, 64), (1, 1024), (16, 64), (16, 1024))
    """(rows, tokens of context)"""
    prefill: tuple[int, ...] = (128, 2048)
    """Tokens of a prompt, in one piece."""

    def within(self, max_context: int) -> Sizes:
        decode = tuple(size for size in self.decode if size[1] <= max_context)
        return Sizes(decode, tuple(size for size in self.prefill if size <= max_context))

    @property
    def num_pages(self) -> int:
        pages = [rows * context // PAGE for rows, context in self.decode] + [size // PAGE for size in self.prefill]
        return max(pages)


SIZES = Sizes()


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("model", nargs="?", type=Path, help="a Llama's folder whose steps are timed")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="135m", help="a random one instead")
    parser.add_argument("--kernels", choices=["compiled", "torch"], default="compiled")
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement in each round")
    parser.add_argument("--examples", type=int, default=60, help="held-out examples of pie-tiny")
    parser.add_argument("--peers", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    with tempfile.TemporaryDirectory() as work:
        result = run(args, Path(work))
    print(table(result))
    save(args.json_out, result)


def run(args: argparse.Namespace, work: Path) -> dict[str, object]:
    checkpoint = args.model or write_checkpoint(work / args.shape, args.shape)
    rows: dict[str, dict[str, object]] = {each.name: asdict(each) for each in PRECISIONS}
    for name, loss in losses(work, args).items():
        rows[name] |= loss
    drivers = {each.name: each.load(checkpoint, work, args.kernels, args.num_threads) for each in PRECISIONS}
    bytes_per_s = read_bandwidth(args.num_threads)
    for name, timed in speeds(drivers, args).items():
        weight_bytes = drivers[name].capabilities.weight_bytes
        floor_ms = 1e3 * weight_bytes / bytes_per_s
        rows[name] |= {"weight_bytes": weight_bytes, "floor_ms": round(floor_ms, 3), **timed}
    if args.peers:
        for each in PRECISIONS:
            if each.name in PEER_TYPES:
                file = Precision(each.name, gguf=PEER_TYPES[each.name]).file(checkpoint, work)
                rows[each.name]["llamacpp"] = llama_cpp(args.peers / LLAMA_BENCH, file, args)
    return {
        "bench": "precision",
        "model": checkpoint.name,
        "kernels": args.kernels,
        "num_threads": args.num_threads,
        "read_bytes_per_s": round(bytes_per_s),
        "workload": {"rounds": args.rounds, "seconds": args.seconds, "examples": args.examples},
        "results": list(rows.values()),
    }


# Speed.


def speeds(drivers: dict[str, CpuDriver], args: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """By precision the milliseconds of a step by `rows x context`, and tokens a second by the length of a prompt."""
    sizes = SIZES.within(next(iter(drivers.values())).capabilities.max_context_tokens)
    for driver in drivers.values():
        driver.allocate_kv(sizes.num_pages)
    clock = time.thread_time if args.num_threads == 1 else time.perf_counter
    least: dict[str, dict[str, float]] = {name: {} for name in drivers}
    for _ in range(args.rounds):
        for name, driver in drivers.items():
            for label, rows in steps_of(sizes):
                taken = shortest_s(functools.partial(driver.execute, rows), clock, args.seconds)
                least[name][label] = min(taken, least[name].get(label, math.inf))
    return {
        name: {
            "step_ms": {f"{b}x{n}": round(1e3 * taken[f"{b}x{n}"], 3) for b, n in sizes.decode},
            "prefill_tokens_per_s": {str(n): round(n / taken[str(n)], 1) for n in sizes.prefill},
        }
        for name, taken in least.items()
    }


def steps_of(sizes: Sizes) -> Iterator[tuple[str, list[Row]]]:
    """Rows at the end of contexts whose pages are scattered over the pool, and whole prompts."""
    for num_rows, context in sizes.decode:
        each = context // PAGE
        pages = random.Random(0).sample(range(sizes.num_pages), num_rows * each)
        spans = (pages[row * each : (row + 1) * each] for row in range(num_rows))
        yield f"{num_rows}x{context}", [Row([5], context - 1, span, GREEDY) for span in spans]
    for length in sizes.prefill:
        yield str(length), [Row([5] * length, 0, range(length // PAGE), GREEDY)]


def shortest_s(step: Callable[[], object], clock: Callable[[], float], seconds: float) -> float:
    """After a run that does not count."""
    step()
    times: list[float] = []
    end = time.monotonic() + seconds
    while not times or time.monotonic() < end:
        start = clock()
        step()
        times.append(clock() - start)
    return min(times)


def llama_cpp(binary: Path, file: Path, args: argparse.Namespace) -> dict[str, object]:
    """What llama.cpp's own bench says: the least milliseconds of a token, and the most tokens a second of prompts."""
    sizes = ",".join(map(str, SIZES.prefill))
    command = [str(binary), "-m", str(file), "-t", str(args.num_threads), "-p", sizes, "-n", "32"]
    told = subprocess.run([*command, "-r", str(args.rounds), "-o", "json"], capture_output=True, check=True)
    rates = {(test["n_prompt"], test["n_gen"]): max(test["samples_ts"]) for test in json.loads(told.stdout)}
    return {
        "step_ms": {"1x32": round(1e3 / rates[0, 32], 3)},
        "prefill_tokens_per_s": {str(n): round(rates[n, 0], 1) for n in SIZES.prefill},
    }


# Loss.


def losses(work: Path, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """By precision `loss`, `perplexity` and `kl` of pie-tiny."""
    tiny = resolve("pie-tiny")
    texts = list(itertools.islice(held_out(tiny), args.examples))
    found: dict[str, dict[str, float]] = {}
    expected: list[torch.Tensor] = []
    for precision in PRECISIONS:
        driver = precision.load(tiny, work, args.kernels, args.num_threads)
        driver.allocate_kv(MAX_TOKENS // PAGE)
        logs = [log_softmax(logits_of(driver, ids), dim=-1) for ids in texts]
        expected = expected or logs
        num_tokens = sum(len(ids) - 1 for ids in texts)
        loss = sum(
            cross_entropy(log[:-1], torch.tensor(ids[1:]), reduction="sum").item()
            for log, ids in zip(logs, texts, strict=True)
        )
        kl = sum(
            kl_div(log[:-1], exact[:-1], reduction="sum", log_target=True).item()
            for log, exact in zip(logs, expected, strict=True)
        )
        mean = loss / num_tokens
        found[precision.name] = {
            "loss": round(mean, 5),
            "perplexity": round(math.exp(mean), 5),
            "kl": round(max(kl, 0.0) / num_tokens, 6),
        }
    return found


def held_out(folder: Path) -> Iterator[list[int]]:
    """Token ids of examples that the training did not see."""
    tokenizer = Tokenizer.load(folder)
    for example in examples(0, "held_out"):
        ids = [token for segment in segments(example) for token in tokenizer.encode(segment.text)]
        yield ids[:MAX_TOKENS]


def logits_of(driver: CpuDriver, ids: list[int]) -> torch.Tensor:
    """[tokens, vocabulary]"""
    span = Span(0, len(ids), 0, list(range(-(-len(ids) // PAGE))))
    return driver._model.forward([span], ids, driver._allocated(), range(len(ids)))


# What it says.


def table(result: dict[str, object]) -> str:
    """One line a precision; beside a step at batch 1 how many floors it takes."""
    rows: list[dict] = result["results"]  # type: ignore[type-arg, assignment]
    steps, prompts = list(rows[0]["step_ms"]), list(rows[0]["prefill_tokens_per_s"])
    heads = [
        "weights MB",
        "floor ms",
        *(f"step {size}" for size in steps),
        "floors",
        *(f"prefill {n}" for n in prompts),
    ]
    lines = [f"{'':6}" + "".join(f"{head:>14}" for head in [*heads, "perplexity", "KL"])]
    for row in rows:
        cells = [row["weight_bytes"] / 1e6, row["floor_ms"], *row["step_ms"].values()]
        cells += [row["step_ms"][steps[0]] / row["floor_ms"], *row["prefill_tokens_per_s"].values()]
        texts = [f"{cell:14.2f}" for cell in cells] + [f"{row['perplexity']:14.4f}", f"{row['kl']:14.6f}"]
        lines.append(f"{row['name']:6}" + "".join(texts))
        if peer := row.get("llamacpp"):
            lines.append(f"{'':8}llama.cpp: step {peer['step_ms']}, prefill {peer['prefill_tokens_per_s']}")
    lines.append(f"memory is read at {result['read_bytes_per_s'] / 1e9:.1f} GB/s")  # type: ignore[operator]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
