"""The file of a recording: whatever is written is read again, and what is wrong with one is said."""

from __future__ import annotations

import base64
import io
import tracemalloc
import zlib
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_engine.errors import InvalidInput, NotFound
from pie_engine.protocol.plan import Usage
from pie_engine.protocol.program import Bundle, Limits, Manifest
from pie_engine.protocol.recording import (
    MAGIC,
    VERSION,
    Call,
    End,
    Fail,
    Full,
    Head,
    Piped,
    Reads,
    RecordingFile,
    RecordingWriter,
    pack,
    parse,
    read_recording,
    write_frame,
)
from tests import thoroughness

BUNDLE = Bundle(Manifest(name="p"), {"main.py": "x"}, {"data.bin": b"\0\xff"})
HEAD = Head("p", "1.0", "d1", "pid", BUNDLE, ['{"n": 1}'], 1.5, Limits(64, 1.0, None, 2.0), ["KEY"], "r1")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TIMES = st.integers(0, 2**60)
READS = st.builds(Reads, st.lists(TIMES), st.lists(TIMES), st.binary())
ENTRIES = st.one_of(
    st.builds(Call, TIMES, TIMES, st.text(), st.text(), st.lists(VALUES), VALUES, READS),
    st.builds(
        Fail, TIMES, TIMES, st.text(), st.text(), st.lists(VALUES), st.tuples(st.text(), st.text(), st.booleans())
    ),
    st.builds(Piped, TIMES, st.text()),
    st.builds(Full, st.floats(0, 100)),
    st.builds(
        End, TIMES, st.sampled_from(["return", "error"]), st.text(), st.builds(Usage, st.integers(0, 2**60)), READS
    ),
)


def file_of(*frames) -> bytes:
    file = io.BytesIO()
    file.write(MAGIC + bytes([VERSION]))
    for frame in frames:
        write_frame(file, pack(frame))
    return file.getvalue()


@settings(max_examples=thoroughness.count(15, 300), deadline=None)
@given(st.lists(st.lists(ENTRIES, max_size=4), max_size=4))
def test_what_was_written_is_read(frames):
    recording = parse(file_of([HEAD], *frames), "it")
    assert recording.head == HEAD
    assert recording.entries == [entry for frame in frames for entry in frame]


@settings(max_examples=thoroughness.count(10, 200), deadline=None)
@given(st.lists(st.lists(ENTRIES, max_size=4), max_size=4))
def test_one_on_the_disk_says_the_same_entry_by_entry(tmp_path_factory, frames):
    path = tmp_path_factory.mktemp("recording") / "it.rec"
    path.write_bytes(file_of([HEAD], *frames))
    whole, file = read_recording(path), RecordingFile(path)
    assert (file.head, file.end) == (whole.head, whole.end)
    assert (file.limit_mb is None) == (whole.limit_mb is None)
    assert list(file.events()) == list(whole.events()) == whole.entries


def test_one_on_the_disk_is_not_in_memory(tmp_path):
    path = tmp_path / "long.rec"
    text = "x" * 100_000
    path.write_bytes(file_of([HEAD], *([Piped(n, text)] for n in range(200))))
    tracemalloc.start()
    assert sum(len(entry.text) for entry in RecordingFile(path).events() if isinstance(entry, Piped)) == 200 * len(text)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20 * len(text)


def test_what_is_wrong_at_the_end_of_one_is_said_at_once(tmp_path):
    path = tmp_path / "it.rec"
    whole = bytearray(file_of([HEAD], [Piped(1, "one")], [Piped(2, "two")]))
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(InvalidInput, match="is damaged: the checksum at byte"):
        RecordingFile(path)


@settings(max_examples=thoroughness.count(15, 300), deadline=None)
@given(st.lists(st.lists(ENTRIES, min_size=1, max_size=3), min_size=1, max_size=4), st.data())
def test_one_that_is_cut_off_anywhere_has_what_came_before(frames, data):
    whole = file_of([HEAD], *frames)
    begun = len(file_of([HEAD]))
    recording = parse(whole[: data.draw(st.integers(begun, len(whole)))], "it")
    entries = [entry for frame in frames for entry in frame]
    assert recording.entries == entries[: len(recording.entries)]


@settings(max_examples=thoroughness.count(20, 400), deadline=None)
@given(st.data())
def test_a_flipped_bit_is_no_other_recording(data):
    entries = [Call(1, 2, "main.py:1", "context.length", [1], 5), End(3, "return", "1")]
    whole = bytearray(file_of([HEAD], entries))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with suppress(InvalidInput):
        # Else it is the size of the last frame, which then is cut off.
        assert parse(bytes(whole), "it.rec").entries == []


def test_who_has_not_begun_has_nothing():
    for cut in (file_of(), file_of([]), file_of([HEAD])[:-1]):
        with pytest.raises(InvalidInput, match="cut off before its program began"):
            parse(cut, "it")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", MAGIC, b"{}" * 40])
def test_another_file_is_none(data):
    with pytest.raises(InvalidInput, match="it is not a recording"):
        parse(data, "it")


@pytest.mark.parametrize(("version", "age"), [(VERSION + 1, "newer"), (0, "another")])
def test_another_version_is_refused_with_both_numbers(version, age):
    data = MAGIC + bytes([version]) + b"whatever comes there"
    with pytest.raises(InvalidInput, match=f"version {version}, of {age} Pie, and this one reads version {VERSION}"):
        parse(data, "it")


def test_what_is_not_packed_as_it_should_be_is_damaged():
    file = io.BytesIO()
    for payload in (b"no zlib", zlib.compress(b"\xc1"), zlib.compress(msgspec.msgpack.encode([["other", 1]]))):
        file = io.BytesIO(MAGIC + bytes([VERSION]))
        file.seek(0, io.SEEK_END)
        write_frame(file, payload)
        with pytest.raises(InvalidInput, match="it is damaged"):
            parse(file.getvalue(), "it")
    with pytest.raises(InvalidInput, match="begins twice"):
        parse(file_of([HEAD], [HEAD]), "it")


def test_a_bomb_is_refused(monkeypatch):
    monkeypatch.setattr("pie_engine.protocol.recording.MAX_FRAME_BYTES", 10_000)
    with pytest.raises(InvalidInput, match="larger than any"):
        parse(file_of([HEAD], [Piped(0, "x" * 100_000)]), "it")


def test_files_that_are_not_there_or_cannot_be_read(tmp_path):
    with pytest.raises(NotFound, match=r"there is no recording .*absent"):
        read_recording(tmp_path / "absent")
    with pytest.raises(InvalidInput, match="cannot read"):
        read_recording(tmp_path)


def test_a_writer_takes_the_events_of_its_own_tap():
    file = io.BytesIO()
    writer = RecordingWriter(file)
    packed = base64.b64encode(pack([HEAD])).decode()
    writer.take({"tap": "profile", "version": 9, "entries": 1, "data": "AAAA"})
    writer.take({"tap": "record", "version": VERSION, "entries": 1, "data": packed})
    writer.take({"tap": "record", "version": VERSION, "entries": 0, "data": "", "full_mb": 2.5})
    recording = parse(file.getvalue(), "it")
    assert (recording.head, recording.limit_mb, recording.end) == (HEAD, 2.5, None)
    with pytest.raises(InvalidInput, match="has version 7"):
        writer.take({"tap": "record", "version": 7, "entries": 1, "data": packed})
