"""What recording costs a host, in processor time.

    python benches/recording.py [--rounds 15] [--calls 2000] [--json-out FILE]

Runs the same programs in an embedded engine with a scripted model, once recorded and once not, in turn, and prints the
least processor time of each (host and guest together; the model's is left out by scripting it):

- calls:  sends and prints, a call a line.
- reply:  one reply of a model, token by token.
- launch: a program that returns at once.

and the size of each recording.
"""

from __future__ import annotations

import base64
import json
import time

from options import bench_parser
from report import save

from pie_engine.config import HostSection, ModelSection
from pie_engine.driver.fake_script import FakeScript, Reply
from pie_engine.embedded import Embedded
from pie_engine.protocol.program import Bundle, Manifest

PROGRAMS = {
    "calls": """
from inferlet import session
async def main(n: int) -> None:
    for i in range(n):
        session.send(i)
""",
    "reply": """
from inferlet import Context
async def main(n: int) -> str:
    ctx = Context()
    ctx.user("Hi")
    return "".join([chunk.text async for chunk in ctx.generate(max_tokens=n)])
""",
    "launch": "async def main(n: int) -> None:\n    pass\n",
}
FAKE = ModelSection(driver="fake", name="fake", num_pages=1024)


def run(engine: Embedded, source: str, num_calls: int, *, recorded: bool) -> tuple[float, int]:
    """Processor seconds, and bytes of the recording."""
    bundle = Bundle(Manifest(name="bench"), {"main.py": source})
    engine.warm_up()
    began = time.process_time()
    process = engine.launch(bundle, {"n": num_calls}, trace=("record",) if recorded else ())
    process.wait(120)
    took_s = time.process_time() - began
    assert process.error is None, process.error
    packed = (json.loads(event.data)["data"] for event in process.events if event.kind == "trace")
    return took_s, sum(len(base64.b64decode(data)) for data in packed)


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=2000)
    args = parser.parse_args()
    results: dict[str, object] = {}
    with Embedded(HostSection(warm_instances=1)) as engine:
        engine.load(FAKE, FakeScript(replies=(Reply("word " * args.calls),)))
        for name, source in PROGRAMS.items():
            least = {False: float("inf"), True: float("inf")}
            num_bytes = 0
            for _ in range(args.rounds):
                for recorded in (False, True):
                    took_s, size = run(engine, source, args.calls, recorded=recorded)
                    least[recorded] = min(least[recorded], took_s)
                    num_bytes = max(num_bytes, size)
            results[name] = {"off_ms": 1e3 * least[False], "on_ms": 1e3 * least[True], "recording_bytes": num_bytes}
            print(f"{name:8} off {1e3 * least[False]:8.2f} ms   on {1e3 * least[True]:8.2f} ms   {num_bytes} bytes")
    save(args.json_out, results)


if __name__ == "__main__":
    main()
