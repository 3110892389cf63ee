"""Tests of the file format of models: round trips and rejected files."""

import json
import pickle
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from config.errors import ModelError
from monitor.detectors import artefact
from monitor.detectors.artefact import Artefact
from monitor.detectors.derivation import Derivation
from monitor.statistics.training_profile import build_feature_profile


def make_artefact(**changes):
    values = {
        "kind": "gaussian_mixture",
        "n_features": 2,
        "feature_names": ("a", "b"),
        "tensors": {"means": np.arange(4.0).reshape(2, 2), "weights": np.array([0.25, 0.75])},
        "settings": {"tol": 0.001},
        "training": {"rows": 10},
        "reference_energies": np.array([1.0, 2.0], dtype=np.float32),
    }
    return Artefact(**{**values, **changes})


def test_artefact_survives_a_round_trip():
    loaded = artefact.from_bytes(artefact.to_bytes(make_artefact()))
    assert (loaded.kind, loaded.n_features, loaded.feature_names) == ("gaussian_mixture", 2, ("a", "b"))
    assert loaded.settings == {"tol": 0.001}
    assert loaded.training == {"rows": 10}
    assert loaded.reference_energies.tolist() == [1.0, 2.0]
    assert np.array_equal(loaded.tensor("means", 2, 2), make_artefact().tensors["means"])


def test_scalar_tensor_stays_scalar():
    # Batch normalisation has a scalar counter, and a network loads only states of the same shapes.
    data = artefact.to_bytes(make_artefact(tensors={"net.num_batches_tracked": np.array(7)}))
    assert artefact.from_bytes(data).tensor("net.num_batches_tracked").tolist() == 7


def test_equal_artefacts_have_equal_bytes():
    assert artefact.to_bytes(make_artefact()) == artefact.to_bytes(make_artefact())


def test_every_flipped_bit_is_detected():
    data = artefact.to_bytes(make_artefact())
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(ModelError):
            artefact.from_bytes(bytes(damaged))


def test_truncated_file_raises_an_error():
    data = artefact.to_bytes(make_artefact())
    for length in range(0, len(data), 7):
        with pytest.raises(ModelError):
            artefact.from_bytes(data[:length])


def test_trailing_bytes_raise_an_error():
    with pytest.raises(ModelError, match="damaged"):
        artefact.from_bytes(artefact.to_bytes(make_artefact()) + b"x")


@pytest.mark.parametrize("header_bytes", [1 << 62, (1 << 64) - 1, artefact.MAX_HEADER_BYTES + 1])
def test_oversized_header_is_rejected_before_it_is_read(header_bytes):
    data = header_bytes.to_bytes(8, "little") + b"{}"
    with pytest.raises(ModelError, match="its header has"):
        artefact.from_bytes(data)


def test_deeply_nested_json_raises_an_error():
    body = b"[" * 100_000
    with pytest.raises(ModelError, match="damaged"):
        artefact.from_bytes(len(body).to_bytes(8, "little") + body)


class _Exploit:
    def __reduce__(self):
        return (pytest.fail, ("code ran",))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickle_is_rejected_without_running_it(protocol):
    with pytest.raises(ModelError, match="can run code"):
        artefact.from_bytes(pickle.dumps(_Exploit(), protocol=protocol))


def test_error_for_another_kind_names_both_kinds():
    with pytest.raises(ModelError, match="is a gaussian_mixture model, not a vaegmm model"):
        artefact.from_bytes(artefact.to_bytes(make_artefact()), kind="vaegmm")


def test_foreign_safetensors_file_raises_an_error():
    body = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    with pytest.raises(ModelError, match="not an Outrider model"):
        artefact.from_bytes(len(body).to_bytes(8, "little") + body)


def test_column_transforms_of_a_later_version_raise_an_error():
    later = Mock(spec=Derivation, to_transforms=lambda: [{"kind": "log", "field": "a"}])
    with pytest.raises(ModelError, match="upgrade Outrider"):
        artefact.from_bytes(artefact.to_bytes(make_artefact(derivation=later)))


def test_derived_features_survive_a_round_trip():
    derivation = Derivation(fields=("a",), changes=(0,), roughnesses=(0,), steps=(0.1,))
    stored = make_artefact(n_features=3, feature_names=derivation.names, derivation=derivation)
    assert artefact.from_bytes(artefact.to_bytes(stored)).derivation == derivation


@pytest.mark.parametrize(
    "damaged",
    [
        {"feature_names": ("a", "a.change", "b.roughness")},
        {"derivation": Derivation(fields=("a",), changes=(0,), roughnesses=(0,), steps=(0.0,))},
    ],
)
def test_damaged_derived_features_raise_an_error(damaged):
    derivation = Derivation(fields=("a",), changes=(0,), roughnesses=(0,), steps=(0.1,))
    parts = {"n_features": 3, "feature_names": derivation.names, "derivation": derivation} | damaged
    with pytest.raises(ModelError, match="fit the model again"):
        artefact.from_bytes(artefact.to_bytes(make_artefact(**parts)))


def test_error_names_an_array_of_the_wrong_shape():
    with pytest.raises(ModelError, match=r"'means' has shape \(2, 2\), expected \(any, 3\)"):
        make_artefact().tensor("means", None, 3)


def test_error_names_a_missing_array():
    with pytest.raises(ModelError, match="'cholesky'"):
        make_artefact().tensor("cholesky", 1)


def test_array_with_nan_raises_an_error():
    with pytest.raises(ModelError, match="NaN or infinity"):
        make_artefact(tensors={"means": np.array([np.nan])}).tensor("means", 1)


def test_save_replaces_the_file_and_leaves_no_temporary_files(tmp_path):
    path = tmp_path / "model.safetensors"
    artefact.save(make_artefact(), path)
    artefact.save(make_artefact(training={"rows": 11}), path)
    assert artefact.load(path).training == {"rows": 11}
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_missing_file_and_directory_raise_an_error(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ModelError, match="there is no model file"):
            artefact.load(path)


def test_error_for_saving_into_a_missing_directory_gives_advice(tmp_path):
    with pytest.raises(ModelError, match="choose a directory"):
        artefact.save(make_artefact(), tmp_path / "none" / "model.safetensors")


def test_checksum_is_in_the_bytes():
    data = artefact.to_bytes(make_artefact())
    assert artefact.read_checksum(data).encode() in data


def make_profiled_artefact(d=2, offset=0.0):
    rows = np.random.default_rng(0).normal(size=(300, d)) + offset
    return make_artefact(n_features=d, feature_names=None, profile=build_feature_profile(rows))


@pytest.mark.parametrize(("offset", "dtype"), [(0.0, np.float32), (1e9, np.float64)])
def test_training_profile_survives_a_round_trip_bit_identically(offset, dtype):
    before = make_profiled_artefact(offset=offset)
    after = artefact.from_bytes(artefact.to_bytes(before))
    assert after.profile.feature_dtype == dtype
    assert not any(name.startswith("profile") for name in after.tensors)
    for name in ("edges", "centre", "deviation", "rank_deviation", "spread_deviation"):
        assert getattr(after.profile, name).tobytes() == getattr(before.profile, name).tobytes()


def test_file_without_a_training_profile_is_read():
    assert artefact.from_bytes(artefact.to_bytes(make_artefact())).profile is None


@pytest.mark.parametrize("centre", [np.zeros(3), np.full(2, np.nan), np.zeros(2, np.float32)])
def test_invalid_training_profile_raises_an_error(centre):
    valid = make_profiled_artefact()
    broken = replace(valid, profile=replace(valid.profile, centre=centre))
    with pytest.raises(ModelError, match=r"invalid training profile \(centre\)"):
        artefact.from_bytes(artefact.to_bytes(broken))
