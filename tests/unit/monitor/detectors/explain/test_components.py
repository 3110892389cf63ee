"""Names of components by their centres."""

import numpy as np

from monitor.detectors import GaussianMixture
from monitor.detectors.explain.components import name_components


def test_the_features_that_set_a_component_apart_are_named() -> None:
    means = np.array([[20.0, 3.0, 7.0], [2413.0, 14.0, 7.1]])
    names = name_components(np.array([0.12, 0.88]), means, np.ones((2, 3)), ("amount", "hour", "flag"))
    assert names == ("near amount 20, hour 3", "near amount 2410, hour 14")


def test_a_single_component_is_named_by_one_feature() -> None:
    assert name_components(np.ones(1), np.array([[5.0, 6.0]]), np.ones((1, 2)), ("a", "b")) == ("near a 5",)


def test_components_with_near_centres_have_distinct_names() -> None:
    means = np.array([[1.00001, 0.0], [1.00002, 0.0], [1.00002, 0.0]])
    names = name_components(np.full(3, 1 / 3), means, np.ones((3, 2)), ("a", "b"))
    assert len(set(names)) == 3


def test_a_mixture_names_its_components_for_every_covariance_type() -> None:
    rng = np.random.default_rng(0)
    train = np.concatenate([rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 50])
    for covariance_type in ("full", "tied", "diag", "spherical"):
        names = GaussianMixture(2, covariance_type=covariance_type, random_state=0).fit(train).name_components()
        assert all(name.startswith("near x") for name in names)
        assert len(set(names)) == 2
