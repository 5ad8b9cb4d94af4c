"""What a fork costs at the end of a short context and of a long one: time in the core and memory, beside its length.

    python benches/fork.py [--tokens 10 10000 100000] [--forks 200] [--json-out FILE]

The core runs on the fake driver: forking never reaches the device. A fork is timed from the message of its host to the
context that is there, in CPU time of the thread; forks are taken one after the other and released together. Memory is
what Python has allocated for one of them.
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from itertools import count

from options import bench_parser
from report import save

from pie_engine.config import ModelSection
from pie_engine.core.loop import Core
from pie_engine.driver.fake import FakeDriver
from pie_engine.driver.fake_script import FakeScript
from pie_engine.hub.places import resolve
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.to_core import Append, CreateContext, Flush, Fork, OpenProcess, Release

HOST = "bench"
CTX = 1


class Bench:
    """A core with one context of `num_tokens` tokens, all of them computed."""

    def __init__(self, num_tokens: int) -> None:
        folder = resolve("pie-tiny")
        driver = FakeDriver.load(folder, script=FakeScript(max_context_tokens=num_tokens + 1))
        section = ModelSection(path="pie-tiny", driver="fake", num_pages=num_tokens // 16 + 8, max_batch_tokens=4096)
        self._core = Core(driver, Tokenizer.load(folder), section)
        self._ids = count(CTX + 1)
        self.num_tokens = num_tokens
        tokens = [(7 * place) % driver.capabilities.vocab_size for place in range(num_tokens)]
        opening = [OpenProcess("p", HOST, HOST), CreateContext(CTX, "p", 0), Append(CTX, tokens)]
        self._core.receive(HOST, [*opening, Flush(next(self._ids), CTX)])
        while not self._core.take_outgoing():
            self._core.step()

    def fork(self) -> Fork:
        return Fork(CTX, next(self._ids), self.num_tokens)

    def fork_us(self, num_forks: int) -> list[float]:
        """CPU time of each fork."""
        forks, times = [self.fork() for _ in range(num_forks)], []
        gc.disable()
        for fork in forks:
            started = time.thread_time_ns()
            self._core.receive(HOST, (fork,))
            times.append((time.thread_time_ns() - started) / 1000)
        gc.enable()
        self._core.receive(HOST, [Release(fork.child) for fork in forks])
        return times

    def fork_bytes(self, num_forks: int) -> int:
        forks = [self.fork() for _ in range(num_forks)]
        self.fork_us(1)
        tracemalloc.start()
        self._core.receive(HOST, forks)
        num_bytes = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        self._core.receive(HOST, [Release(fork.child) for fork in forks])
        return num_bytes // num_forks


def measure(num_tokens: int, num_forks: int) -> dict[str, float]:
    bench = Bench(num_tokens)
    bench.fork_us(num_forks)
    times = bench.fork_us(num_forks)
    return {
        "tokens": num_tokens,
        "least_us": round(min(times), 1),
        "median_us": round(statistics.median(times), 1),
        "bytes": bench.fork_bytes(num_forks),
    }


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[10, 10_000, 100_000])
    parser.add_argument("--forks", type=int, default=200)
    args = parser.parse_args()
    results = [measure(num_tokens, args.forks) for num_tokens in args.tokens]
    for row in results:
        figures = f"{row['least_us']:6.1f} µs, median {row['median_us']:6.1f}, {row['bytes']} bytes"
        print(f"{row['tokens']:8,} tokens: {figures}")
    save(args.json_out, {"bench": "fork", "results": results})


if __name__ == "__main__":
    main()
