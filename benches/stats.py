"""What it costs a core to say how it is, ten times a second, while many programs run.

    python benches/stats.py [--programs 256 1024] [--seconds 20] [--json-out FILE]

Programs decode on the fake driver, each with a context of 1,600 tokens, of which it shares 800 with all others, and a
fork of it. The clock that the core sees goes 20 ms on with each step, as under a model that takes that long. In CPU
time of the thread: a report without the processes, one with all of them, and the share of the core's time that
reports take, which has to be less than a hundredth; and how often the processes are looked at then.
"""

from __future__ import annotations

import statistics
import time
from itertools import count

import msgspec
from options import bench_parser
from report import save

from pie_engine.config import ModelSection
from pie_engine.core.loop import Core
from pie_engine.core.reports import Reports
from pie_engine.driver.fake import FakeDriver
from pie_engine.driver.fake_script import FakeScript
from pie_engine.hub.places import resolve
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import Plan
from pie_engine.protocol.to_core import Append, CreateContext, Delivered, Fork, Generate, OpenProcess
from pie_engine.protocol.to_gateway import CoreStats
from pie_engine.protocol.to_host import Chunk

HOST = "bench"
STEP_S = 0.02
INTERVAL_S = 0.1
SHARED_TOKENS, OWN_TOKENS = 800, 800
MAX_SHARE = 0.01
_encode = msgspec.msgpack.Encoder().encode


class BusyCore:
    """A core whose programs decode without an end, and take every token at once."""

    def __init__(self, num_programs: int) -> None:
        self.now = 0.0
        section = ModelSection(
            driver="fake", num_pages=num_programs * 160, max_batch_sequences=num_programs, max_batch_tokens=8192
        )
        tokenizer = Tokenizer.load(resolve("pie-tiny"))
        self.core = Core(FakeDriver(tokenizer, FakeScript(), page_size=16), tokenizer, section, clock=lambda: self.now)
        ids = count(1)
        for number in range(num_programs):
            pid, ctx, op = f"{number:016x}", next(ids), next(ids)
            own = [(number * 7 + index) % 200 for index in range(OWN_TOKENS)]
            plan = Plan(ignore_eos=True)
            self.core.receive(
                HOST,
                [
                    OpenProcess(pid, "bench", "local"),
                    CreateContext(ctx, pid, 1),
                    Append(ctx, [*range(100), *range(SHARED_TOKENS - 100), *own]),
                    Fork(ctx, next(ids), SHARED_TOKENS + OWN_TOKENS),
                    Generate(op, ctx, plan),
                ],
            )
        while not all(operation.kv.num_uncomputed <= 1 for operation in self.core._scheduler.runnable):
            self.step()

    def step(self) -> None:
        self.core.step()
        chunks = [each for each in self.core.take_outgoing().get(HOST, []) if isinstance(each, Chunk)]
        delivered = [Delivered(each.op, each.epoch, each.index + len(each.ids)) for each in chunks]
        self.core.receive(HOST, delivered)
        self.now += STEP_S


def measure(num_programs: int, seconds: float) -> dict[str, float]:
    """In a stretch of `seconds` on the core's clock."""
    busy = BusyCore(num_programs)
    reports = Reports(busy.core, clock=lambda: busy.now)
    reports.set_interval(INTERVAL_S)
    sent: list[CoreStats] = []
    spent_us: dict[bool, list[float]] = {True: [], False: []}

    def send(stats: CoreStats) -> None:
        _encode([stats])
        sent.append(stats)

    num_begun, end = busy.core.num_steps, busy.now + seconds
    while busy.now < end:
        busy.step()
        began, num_sent = time.thread_time_ns(), len(sent)
        reports.take(send)
        if len(sent) > num_sent:
            spent_us[sent[-1].processes is not None].append((time.thread_time_ns() - began) / 1000)
    all_us = [*spent_us[True], *spent_us[False]]
    return {
        "programs": num_programs,
        "steps": busy.core.num_steps - num_begun,
        "report_us": statistics.median(spent_us[False] or [0.0]),
        "with_processes_us": statistics.median(spent_us[True]),
        "bytes": len(_encode([next(stats for stats in sent if stats.processes is not None)])),
        "share": sum(all_us) / 1e6 / seconds,
        "processes_every_s": seconds / len(spent_us[True]),
    }


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--programs", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    found = [measure(num_programs, options.seconds) for num_programs in options.programs]
    print("programs  report  with processes  share  processes every")
    for each in found:
        print(
            f"{each['programs']:8}  {each['report_us']:3.0f} us  {each['with_processes_us'] / 1000:11.2f} ms  "
            f"{each['share']:5.2%}  {each['processes_every_s']:13.2f} s"
        )
    save(options.json_out, {"stats": found})
    worst = max(each["share"] for each in found)
    raise SystemExit(f"more than {MAX_SHARE:.0%}: {worst:.2%}" if worst > MAX_SHARE else 0)


if __name__ == "__main__":
    main()
