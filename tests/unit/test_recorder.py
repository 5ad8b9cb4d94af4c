"""The file that `pie run --record` writes."""

from __future__ import annotations

import base64
import errno
import io
import os
from pathlib import Path

import pytest

from pie_cli.recordings.write import Recorder
from pie_engine.errors import InvalidInput
from pie_engine.protocol.program import Bundle, Limits, Manifest
from pie_engine.protocol.recording import VERSION, Head, pack, read_recording

HEAD = Head("p", "1.0", "d", "pid", Bundle(Manifest(name="p")), ["{}"], 0.0, Limits())
PART = {"tap": "record", "version": VERSION, "entries": 1, "data": base64.b64encode(pack([HEAD])).decode()}


def test_the_file_is_whole_while_it_is_written(tmp_path):
    path = tmp_path / "x.rec"
    path.write_text("an earlier one")
    with Recorder(str(path)) as recorder:
        assert path.read_text() == "an earlier one", "until there is something to write"
        recorder.take(PART)
        assert recorder.has_begun
        assert read_recording(path).head == HEAD


@pytest.mark.parametrize(
    ("name", "words"), [("absent/x.rec", "there is no folder"), (".", "it is a folder")], ids=["absent", "folder"]
)
def test_where_nothing_can_be_written_it_is_said_before_anything_runs(tmp_path, name, words):
    with pytest.raises(InvalidInput, match=words):
        Recorder(str(tmp_path / name))


class FullFile(io.BytesIO):
    """On a disk that is full."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_ends_the_recording_and_not_the_program(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Path, "open", lambda *_: FullFile())
    with Recorder(str(tmp_path / "x.rec")) as recorder:
        recorder.take(PART)
        recorder.take(PART)
        assert recorder.has_failed
    said = capfd.readouterr().err
    assert said.count("the recording ends here: cannot write ") == said.count("No space left on device") == 1
