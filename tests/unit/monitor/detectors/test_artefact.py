"""The file form of a model: what comes back, and what is refused."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from config.errors import ModelError
from monitor.detectors import artefact
from monitor.detectors.artefact import Artefact
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


def test_what_is_written_comes_back():
    back = artefact.from_bytes(artefact.to_bytes(make_artefact()))
    assert (back.kind, back.n_features, back.feature_names) == ("gaussian_mixture", 2, ("a", "b"))
    assert back.settings == {"tol": 0.001}
    assert back.training == {"rows": 10}
    assert back.reference_energies.tolist() == [1.0, 2.0]
    assert np.array_equal(back.tensor("means", 2, 2), make_artefact().tensors["means"])


def test_a_count_without_dimensions_comes_back_as_one():
    # Batch normalisation keeps such a count, and a network is only loaded into a state of the same shapes.
    data = artefact.to_bytes(make_artefact(tensors={"net.num_batches_tracked": np.array(7)}))
    assert artefact.from_bytes(data).tensor("net.num_batches_tracked").tolist() == 7


def test_equal_models_give_equal_bytes():
    assert artefact.to_bytes(make_artefact()) == artefact.to_bytes(make_artefact())


def test_a_flipped_bit_anywhere_is_noticed():
    data = artefact.to_bytes(make_artefact())
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(ModelError):
            artefact.from_bytes(bytes(damaged))


def test_a_file_cut_anywhere_is_refused():
    data = artefact.to_bytes(make_artefact())
    for length in range(0, len(data), 7):
        with pytest.raises(ModelError):
            artefact.from_bytes(data[:length])


def test_bytes_after_the_end_are_refused():
    with pytest.raises(ModelError, match="damaged"):
        artefact.from_bytes(artefact.to_bytes(make_artefact()) + b"x")


@pytest.mark.parametrize("claimed", [1 << 62, (1 << 64) - 1, artefact.MAX_HEADER_BYTES + 1])
def test_a_huge_header_is_refused_before_it_is_read(claimed):
    data = claimed.to_bytes(8, "little") + b"{}"
    with pytest.raises(ModelError, match="header claims"):
        artefact.from_bytes(data)


def test_deeply_nested_json_is_refused():
    body = b"[" * 100_000
    with pytest.raises(ModelError, match="damaged"):
        artefact.from_bytes(len(body).to_bytes(8, "little") + body)


class _Exploit:
    def __reduce__(self):
        return (pytest.fail, ("code ran",))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_is_refused_and_never_run(protocol):
    with pytest.raises(ModelError, match="could run code"):
        artefact.from_bytes(pickle.dumps(_Exploit(), protocol=protocol))


def test_another_kind_is_refused_and_both_are_named():
    with pytest.raises(ModelError, match="is a gaussian_mixture model, not a vaegmm model"):
        artefact.from_bytes(artefact.to_bytes(make_artefact()), kind="vaegmm")


def test_a_foreign_safetensors_file_is_refused():
    body = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    with pytest.raises(ModelError, match="not an Outrider model"):
        artefact.from_bytes(len(body).to_bytes(8, "little") + body)


def test_column_transforms_of_a_later_version_are_refused():
    with pytest.raises(ModelError, match="upgrade Outrider"):
        artefact.from_bytes(artefact.to_bytes(make_artefact(transforms=({"kind": "log"},))))


def test_an_array_of_the_wrong_shape_is_named():
    with pytest.raises(ModelError, match=r"'means' has shape \(2, 2\), expected \(any, 3\)"):
        make_artefact().tensor("means", None, 3)


def test_an_array_that_is_missing_is_named():
    with pytest.raises(ModelError, match="'cholesky'"):
        make_artefact().tensor("cholesky", 1)


def test_an_array_that_holds_nan_is_refused():
    with pytest.raises(ModelError, match="NaN or infinity"):
        make_artefact(tensors={"means": np.array([np.nan])}).tensor("means", 1)


def test_saving_replaces_a_file_at_once_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "model.safetensors"
    artefact.save(make_artefact(), path)
    artefact.save(make_artefact(training={"rows": 11}), path)
    assert artefact.load(path).training == {"rows": 11}
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_missing_file_and_a_directory_are_refused_by_name(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ModelError, match="there is no model file"):
            artefact.load(path)


def test_saving_into_a_missing_directory_says_what_to_do(tmp_path):
    with pytest.raises(ModelError, match="choose a directory"):
        artefact.save(make_artefact(), tmp_path / "none" / "model.safetensors")


def test_the_checksum_is_that_of_the_bytes():
    data = artefact.to_bytes(make_artefact())
    assert artefact.read_checksum(data).encode() in data


def make_profiled_artefact(d=2):
    rows = np.random.default_rng(0).normal(size=(300, d)).astype(np.float32)
    return make_artefact(n_features=d, feature_names=None, profile=build_feature_profile(rows))


def test_the_profile_of_the_training_comes_back_to_the_bit():
    before = make_profiled_artefact()
    after = artefact.from_bytes(artefact.to_bytes(before))
    assert not any(name.startswith("profile") for name in after.tensors)
    for name in ("edges", "centre", "deviation", "rank_deviation", "spread_deviation"):
        assert getattr(after.profile, name).tobytes() == getattr(before.profile, name).tobytes()


def test_a_file_from_before_drift_was_watched_has_no_profile():
    assert artefact.from_bytes(artefact.to_bytes(make_artefact())).profile is None


@pytest.mark.parametrize("wrong", [np.zeros(3), np.full(2, np.nan), np.zeros(2, np.float32)])
def test_a_profile_that_does_not_fit_is_refused(wrong):
    whole = make_profiled_artefact()
    broken = replace(whole, profile=replace(whole.profile, centre=wrong))
    with pytest.raises(ModelError, match=r"unusable profile of its training \(centre\)"):
        artefact.from_bytes(artefact.to_bytes(broken))
