"""Spooled standard input: read once, re-read and discarded."""

import os
import time

import pytest

from consumers.files import inputs
from consumers.files.inputs import SpooledInput
from consumers.files.lines import LineReader


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    ends = {"w": writing}
    yield reading, ends
    os.close(reading)
    if ends["w"] is not None:
        os.close(ends["w"])


def close_writer(ends):
    os.close(ends["w"])
    ends["w"] = None


def test_received_bytes_can_be_read_again_from_any_row(pipe):
    reading, ends = pipe
    source = SpooledInput(reading)
    os.write(ends["w"], b"[1]\n[2]\n[3")
    assert LineReader(source, 0, 100).read(10, 1_000, 0.5).rows == [b"[1]", b"[2]"]
    assert LineReader(source, 4, 100).read(10, 1_000, 0.0).rows == [b"[2]"]
    os.write(ends["w"], b"]")
    close_writer(ends)
    reader = LineReader(source, 4, 100)
    rows = []
    while not source.is_complete() or len(rows) < 2:
        rows += reader.read(10, 1_000, 0.5).rows
    assert rows == [b"[2]", b"[3]"]
    source.close()


def test_read_from_an_idle_pipe_returns_after_the_timeout(pipe):
    reading, _ = pipe
    source = SpooledInput(reading)
    began = time.monotonic()
    assert source.read_at(0, 100, 0.05) == b""
    assert 0.04 < time.monotonic() - began < 1.0
    assert not source.is_complete()


def test_discarded_bytes_are_deleted_by_whole_segments(pipe, monkeypatch):
    monkeypatch.setattr(inputs, "SEGMENT_BYTES", 8)
    reading, ends = pipe
    source = SpooledInput(reading)
    os.write(ends["w"], b"0123456789abcdefghij")
    close_writer(ends)
    cursor, found = 0, b""
    while block := source.read_at(cursor, 100, 0.5):
        found, cursor = found + block, cursor + len(block)
    assert found == b"0123456789abcdefghij"
    source.discard_before(15)
    assert source.first_byte() == 8
    assert source.read_at(8, 100, 0.0) == b"89abcdef"
    assert source.read_at(0, 100, 0.0) == b""
    source.close()
