"""Test of header lengths that begin with the first bytes of a pickle."""

import numpy as np
import pytest

from monitor.detectors.artefact import Artefact, from_bytes, to_bytes


@pytest.mark.parametrize("first", [b"\x80\x02", b"\x80\x04", b"\x80\x05"])
def test_header_length_that_begins_like_a_pickle_is_read(first: bytes) -> None:
    header_bytes = int.from_bytes(first, "little")
    data = bytes_with_header_length(header_bytes)
    assert data[:2] == first
    assert from_bytes(data).n_features == 1


def bytes_with_header_length(header_bytes: int) -> bytes:
    """Return the bytes of an artefact with a header of the given length."""
    shortest = int.from_bytes(artefact_bytes("")[:8], "little")
    data = artefact_bytes("x" * (header_bytes - shortest))
    assert int.from_bytes(data[:8], "little") == header_bytes
    return data


def artefact_bytes(note: str) -> bytes:
    """Return the bytes of an artefact with a note in its training summary."""
    return to_bytes(
        Artefact(
            kind="gaussian_mixture",
            n_features=1,
            feature_names=("x",),
            settings={},
            training={"note": note},
            reference_energies=None,
            tensors={"weights": np.ones(1)},
        )
    )
