"""Tests of artefacts with a valid checksum and invalid contents."""

import contextlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from config.errors import ModelError
from monitor.detectors import AEGMM, VAEGMM, ClassConditionalGaussian, GaussianMixture, artefact, load_detector

X = np.random.default_rng(0).normal(size=(60, 3))


@cache
def artefact_of(kind):
    if kind is ClassConditionalGaussian:
        return kind().fit(X, np.arange(60) % 2).to_artefact()
    return kind().fit(X, **({} if kind is GaussianMixture else {"epochs": 1, "verbose": False})).to_artefact()


@pytest.fixture(params=[GaussianMixture, ClassConditionalGaussian, VAEGMM, AEGMM])
def stored(request):
    return artefact_of(request.param)


def load_forged(forged):
    return load_detector(artefact.to_bytes(forged)).energy(X)


def assert_loads_or_raises(forged):
    """Load and score; pass if all energies are finite, or if a ModelError is raised."""
    with contextlib.suppress(ModelError):
        assert np.isfinite(load_forged(forged)).all()


@pytest.mark.slow
@pytest.mark.parametrize("change", [lambda a: a.ravel(), lambda a: a[:0], lambda a: np.concatenate([a, a])])
def test_arrays_of_another_shape_raise_an_error(stored, change):
    for name, array in stored.tensors.items():
        forged = replace(stored, tensors={**stored.tensors, name: change(array)})
        if forged.tensors[name].shape != array.shape:
            with pytest.raises(ModelError):
                load_forged(forged)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "dtype"),
    [
        (0.0, np.float64),
        (-1.0, np.float64),
        (1e-300, np.float64),
        (1e300, np.float64),
        (1.0, np.int64),
        (1, np.float16),
    ],
)
def test_arrays_of_other_numbers_load_with_finite_energies_or_raise(stored, factor, dtype):
    for name, array in stored.tensors.items():
        with np.errstate(all="ignore"):
            forged = np.nan_to_num(array.astype(np.float64) * factor).clip(-1e307, 1e307).astype(dtype)
        assert_loads_or_raises(replace(stored, tensors={**stored.tensors, name: forged}))


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, -1, "x", {}, 10**30, [10**6, 10**6]])
def test_settings_and_summaries_of_another_type_load_or_raise(stored, value):
    for name in stored.settings:
        assert_loads_or_raises(replace(stored, settings={**stored.settings, name: value}))
    for name in stored.training:
        assert_loads_or_raises(replace(stored, training={**stored.training, name: value}))


@pytest.mark.parametrize("name", ["latent_dim", "n_gmm"])
def test_networks_larger_than_the_file_are_rejected_before_they_are_built(name):
    stored = artefact_of(VAEGMM)
    with pytest.raises(ModelError, match="require networks larger than the"):
        load_forged(replace(stored, settings={**stored.settings, name: 10**9}))


@pytest.mark.slow
def test_missing_arrays_raise_an_error(stored):
    for name in stored.tensors:
        with pytest.raises(ModelError):
            load_forged(replace(stored, tensors={n: a for n, a in stored.tensors.items() if n != name}))


def with_changed_tensor(stored, name, change):
    array = stored.tensors[name].copy()
    change(array)
    return replace(stored, tensors={**stored.tensors, name: array})


def test_factors_that_are_not_triangular_raise_an_error(stored):
    name = next(n for n in ("cholesky", "factors", "mixture.factors") if n in stored.tensors)
    with pytest.raises(ModelError, match="fit it again"):
        load_forged(with_changed_tensor(stored, name, lambda a: a.__setitem__((0, 0, 1), 0.5)))


@pytest.mark.slow
@pytest.mark.parametrize("weight", [-1.0, 3.0])
def test_weights_that_do_not_sum_to_one_raise_an_error(stored, weight):
    name = next(n for n in ("weights", "mixture.weights") if n in stored.tensors)
    with pytest.raises(ModelError, match="fit it again"):
        load_forged(with_changed_tensor(stored, name, lambda a: a.__setitem__(0, weight)))


def test_integer_network_weights_raise_an_error():
    stored = artefact_of(AEGMM)
    name = next(n for n in stored.tensors if n.startswith("net."))
    forged = {**stored.tensors, name: np.ones_like(stored.tensors[name], dtype=np.int32)}
    with pytest.raises(ModelError, match="fit it again"):
        load_forged(replace(stored, tensors=forged))


@pytest.mark.parametrize("width", [0, 1, 2, 4, 10**9])
def test_another_number_of_features_raises_an_error(stored, width):
    with pytest.raises(ModelError):
        load_forged(replace(stored, n_features=width, feature_names=None))


def test_truncated_or_damaged_artefact_of_every_kind_raises_an_error(stored):
    data = artefact.to_bytes(stored)
    for position in range(0, len(data), 97):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        for damaged_data in (data[:position], bytes(damaged)):
            with pytest.raises(ModelError):
                load_detector(damaged_data)
