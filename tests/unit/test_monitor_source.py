"""Where the monitor's snapshots come from: streams that break, and recordings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pie_cli.monitor.recording import Recorder, read
from pie_cli.monitor.source import Trouble, Update, live, replayed
from pie_client.errors import NoDaemon
from pie_engine.errors import InvalidInput
from pie_engine.protocol.stats import Snapshot
from tests.loads import Engine


class Client:
    """Streams that end as a test says: with an error, by silence, in order."""

    def __init__(self, *endings: str) -> None:
        self.endings = list(endings)
        self.asked: list[int] = []
        self._snapshots = Engine("idle", 2).stream(100)

    async def stats_stream(self, *, interval_ms: int) -> AsyncIterator[Snapshot]:
        self.asked.append(interval_ms)
        ending = self.endings.pop(0) if self.endings else "silence"
        if ending == "refused":
            raise NoDaemon("no daemon is running")
        yield next(self._snapshots)
        if ending == "error":
            raise NoDaemon("the daemon is gone")
        if ending == "late":
            await asyncio.sleep(0.1)
            yield next(self._snapshots)
        if ending != "end":
            await asyncio.Event().wait()


async def first(updates: AsyncIterator[Update], number: int) -> list[str]:
    """What comes, shortly."""
    seen = []
    async for update in updates:
        seen.append(update.text if isinstance(update, Trouble) else "snapshot")
        if len(seen) == number:
            break
    return seen


async def test_a_stream_that_breaks_is_said_and_opened_again() -> None:
    client = Client("error", "refused", "end", "silence")
    seen = await first(live(client, 0.5, pause_s=0.0), 6)
    assert seen == [
        "snapshot",
        "reconnecting: the daemon is gone",
        "reconnecting: no daemon is running",
        "snapshot",
        "reconnecting: the daemon has ended the stream",
        "snapshot",
    ]
    assert client.asked == [500] * 4


async def test_silence_is_said_too_and_the_stream_goes_on() -> None:
    seen = await first(live(Client("late"), 0.01, silence_s=0.03, pause_s=0.0), 4)
    assert seen == [
        "snapshot",
        "reconnecting: the daemon does not answer",
        "snapshot",
        "reconnecting: the daemon does not answer",
    ]


async def test_a_recording_comes_at_its_pace_and_says_when_it_is_over() -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    seen = [update async for update in replayed(Engine("idle", 1).stream(5, 0.5), speed=50)]
    assert [isinstance(update, Snapshot) for update in seen] == [True] * 5 + [False]
    assert seen[-1] == Trouble("the recording has ended", is_over=True)
    assert loop.time() - begin >= 0.039


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    recorder = Recorder(path)
    snapshots = list(Engine("contended", 3).stream(4))
    for each in snapshots:
        recorder.write(each)
    recorder.close()
    recorder.close()
    assert recorder.num_written == 4
    assert list(read(path)) == snapshots
    with path.open("ab") as file:
        file.write(b'{"at": 1, "bo')
    assert len(list(read(path))) == 4, "a last line that was cut off"


def test_files_that_are_no_recordings(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(InvalidInput, match="cannot read"):
        list(read(path))
    path.write_text('{"at": 1}\n')
    with pytest.raises(InvalidInput, match="is no snapshot"):
        list(read(path))
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(InvalidInput, match="line 1"):
        list(read(path))
    path.write_text('{"at": 1, "boot": "b", "uptime_s": 1, "pie": "9", "version": 99}\n')
    with pytest.raises(InvalidInput, match="newer Pie"):
        list(read(path))


def test_a_recording_does_not_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    with pytest.raises(InvalidInput, match="is there already"):
        Recorder(path)
    with pytest.raises(InvalidInput, match="cannot write"):
        Recorder(tmp_path / "no" / "folder")


def test_a_full_disk_ends_the_recording_and_is_said() -> None:
    recorder = Recorder.__new__(Recorder)
    recorder.problem, recorder.num_written = "", 0
    recorder._file = open("/dev/full", "wb")  # noqa: SIM115 - the recorder closes it
    recorder.write(next(Engine("idle", 1).stream(1)))
    assert recorder.problem == "the recording has ended: No space left on device"
    recorder.write(next(Engine("idle", 1).stream(1)))
    assert recorder.num_written == 0
