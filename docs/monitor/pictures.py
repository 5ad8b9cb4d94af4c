"""Makes the pictures of docs/monitor.md: the monitor over an idle, a saturated and a contended engine.

With `--daemon` of the user's daemon, which should have few KV pages (`num_pages = 192` for its model): programs run on
it, load by load, and of each a picture is taken. Without it they are made from the streams that the tests use.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from pie_cli.monitor.app import MonitorApp  # noqa: E402
from pie_cli.monitor.engine import Recorded  # noqa: E402
from pie_cli.monitor.picture import portable  # noqa: E402
from pie_client import PieClient  # noqa: E402
from pie_engine.protocol.stats import Snapshot  # noqa: E402
from tests.loads import Engine  # noqa: E402

LOADS = {"idle": 12, "saturated": 60, "contended": 60}
"""With how many programs each is made."""
SIZE = (150, 42)
NUM_SNAPSHOTS = 240
LOOK_S = 40.0
REAL: dict[str, list[tuple[str, int, dict[str, object]]]] = {
    "idle": [("chat", 4, {"max_tokens": 20, "rest_s": 8.0})],
    "saturated": [("chat", 14, {"max_tokens": 60}), ("agent", 2, {"max_tokens": 60, "branches": 3})],
    "contended": [
        ("writer", 12, {"max_tokens": 400}),
        ("tree-search", 3, {"max_tokens": 200, "branches": 6}),
        ("chat", 5, {"max_tokens": 30}),
    ],
}
"""Names of programs, how many of them each load has, and what they are given."""


async def made(load: str) -> AsyncIterator[Snapshot]:
    for snapshot in Engine(load, LOADS[load]).stream(NUM_SNAPSHOTS, 0.5):  # type: ignore[arg-type]
        yield snapshot


async def seen(load: str) -> AsyncIterator[Snapshot]:
    """Of the daemon, while it runs the programs of a load; they end with this."""
    with tempfile.TemporaryDirectory() as folder:
        async with PieClient() as client:
            for name, number, given in REAL[load]:
                program = Path(shutil.copy(HERE / "load.py", Path(folder) / f"{name}.py"))
                for _ in range(number):
                    await client.launch_process(program, given)
            async for snapshot in _for_a_while(client):
                yield snapshot


async def _for_a_while(client: PieClient) -> AsyncIterator[Snapshot]:
    end = time.monotonic() + LOOK_S
    async for snapshot in client.stats_stream(interval_ms=250):
        yield snapshot
        if time.monotonic() > end:
            return


async def never() -> AsyncIterator[Snapshot]:
    await asyncio.Event().wait()
    yield  # type: ignore[misc]


async def picture(snapshots: AsyncIterator[Snapshot]) -> str:
    with tempfile.TemporaryDirectory() as home:
        app = MonitorApp(never(), Recorded(), Path(home))
        async with app.run_test(size=SIZE) as pilot:
            await pilot.pause()
            async for snapshot in snapshots:
                app.take(snapshot)
            app.main.read_now()
            app.draw()
            await pilot.pause()
            return portable(app.export_screenshot())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loads", nargs="*", metavar="LOAD", help="idle, saturated, contended; all by default")
    parser.add_argument("--daemon", action="store_true", help="of the user's daemon")
    options = parser.parse_args()
    os.environ["TZ"] = "UTC"
    time.tzset()
    for load in options.loads or LOADS:
        svg = asyncio.run(picture(seen(load) if options.daemon else made(load)))
        (HERE / f"{load}.svg").write_text(svg, "utf-8")
        print(HERE / f"{load}.svg")


if __name__ == "__main__":
    main()
