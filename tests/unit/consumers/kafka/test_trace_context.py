"""The header `traceparent`: the examples of W3C Trace Context, and texts that are none."""

import pytest

from consumers.kafka.trace_context import parse_trace_id

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
VALID = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.mark.parametrize("value", [VALID, VALID[:-2] + "00", f"cc{VALID[2:]}", f"cc{VALID[2:]}-what-the-future-adds"])
def test_trace_is_read(value):
    assert parse_trace_id(value.encode()) == TRACE_ID


@pytest.mark.parametrize(
    "value",
    [
        "",
        TRACE_ID,
        VALID.upper(),
        VALID[:-1],
        VALID + "0",
        VALID + "\n",
        VALID + "-more",
        " " + VALID,
        f"ff{VALID[2:]}",
        f"cc{VALID[2:]}.more",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        VALID.replace("4bf9", "4bg9"),
        VALID.replace("-", "\0"),
        "00-" * 4_000,
        "<script>alert(1)</script>",
    ],
)
def test_other_values_have_no_trace(value):
    assert parse_trace_id(value.encode()) is None


def test_null_and_bytes_that_are_no_text_have_no_trace():
    assert parse_trace_id(None) is None
    assert parse_trace_id(b"\xff" * 55) is None
