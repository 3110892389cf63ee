"""Whether features are derived is decided by the arrival of the events of a key, not of the stream."""

import numpy as np
import pytest
from numpy.typing import NDArray

from config.errors import ConfigError
from config.streams import EventSettings, ModelSettings
from consumers.decoded_batch import Events
from monitor.models.fitting import derive_inputs, fit_model
from monitor.models.scoring import Scorer, load_model
from monitor.models.training_history import find_history, is_regular, split_history
from monitor.models.training_set import TrainingSet
from monitor.pipeline.key_states import KeyedSource
from monitor.statistics.key_states import FieldHistory
from storage.control.models import ModelRecord

SECOND = 1_000_000
NAMES = ("x", "y")
AUTO = EventSettings(derive="auto")


def _events(times_us: NDArray[np.int64], keys: NDArray[np.int64] | None = None) -> Events:
    n = len(times_us)
    features = np.random.default_rng(1).normal(size=(n, 2)).cumsum(axis=0)
    own = None if keys is None else [f"host-{key}" for key in keys.tolist()]
    return Events(offsets=np.arange(n), times_us=times_us.astype(np.int64), features=features, keys=own)


def _regular(n: int = 400, step_s: float = 60.0) -> NDArray[np.int64]:
    jitter = np.random.default_rng(0).normal(size=n) * 0.1
    return ((np.arange(n) + jitter) * step_s * SECOND).astype(np.int64) + 10**15


def _poisson(n: int = 400, step_s: float = 60.0) -> NDArray[np.int64]:
    return np.cumsum(np.random.default_rng(0).exponential(step_s * SECOND, n)).astype(np.int64)


def test_regular_events_of_a_key_are_found_among_those_of_other_keys() -> None:
    assert is_regular([_events(_regular())])
    assert not is_regular([_events(_poisson())])
    interleaved = np.sort(np.concatenate([_regular(200) + lag * 7 * SECOND for lag in range(3)]))
    assert is_regular([_events(interleaved, np.arange(600) % 3)])
    assert not is_regular([_events(interleaved, np.arange(600))]), "every event has a key of its own"


def test_gaps_in_regular_events_do_not_matter() -> None:
    times_us = _regular()
    times_us[200:] += 7 * 86_400 * SECOND
    assert is_regular([_events(times_us)])


def test_a_flood_of_evenly_spaced_events_is_not_regular() -> None:
    assert not is_regular([_events(_regular(step_s=0.002))])


def test_most_events_decide() -> None:
    assert is_regular([_events(_regular(300)), _events(_poisson(200))])
    assert not is_regular([_events(_regular(200)), _events(_poisson(300))])


def test_auto_derives_all_fields_of_enough_regular_events() -> None:
    history = find_history([_events(_regular())], AUTO, NAMES)
    assert history is not None
    assert history.derived == (0, 1)
    assert history.context.shape == (400, 6)
    assert find_history([_events(_regular(50))], AUTO, NAMES) is None
    assert find_history([_events(_poisson())], AUTO, NAMES) is None
    assert find_history([_events(_regular())], EventSettings(), NAMES) is None


def test_named_fields_are_derived_whatever_the_arrival() -> None:
    history = find_history([_events(_poisson())], EventSettings(derive=["y"]), NAMES)
    assert history is not None
    assert history.derived == (1,)
    with pytest.raises(ConfigError, match="z is not among the features x, y"):
        find_history([_events(_poisson())], EventSettings(derive=["z"]), NAMES)


def test_the_history_of_sampled_events_is_behind_their_fields() -> None:
    events = np.arange(16.0).reshape(2, 8)
    fields, history = split_history(events, 2, (1,))
    assert history is not None
    assert np.array_equal(np.concatenate([fields, history.context], axis=1), events)
    assert history.derived == (1,)
    assert split_history(events[:, :2], 2, (1,))[1] is None
    assert split_history(events, 2, ())[1] is None


def test_each_partition_begins_without_a_history() -> None:
    parts = [_events(_regular(200)), _events(_regular(200))]
    history = find_history(parts, AUTO, NAMES)
    assert history is not None
    assert np.array_equal(history.context[:200], history.context[200:])


def _training(events: Events, settings: EventSettings) -> TrainingSet:
    history = find_history([events], settings, NAMES)
    return TrainingSet(features=events.features, names=NAMES, rejected=0, exhausted=True, history=history)


def test_events_with_little_history_are_not_trained_on() -> None:
    derivation, inputs, rows = derive_inputs(_training(_events(_regular()), AUTO))
    assert derivation is not None
    assert derivation.names == ("x", "y", "x.change", "y.change", "x.roughness", "y.roughness")
    assert inputs.shape == (395, 6)
    assert rows.tolist() == [False] * 5 + [True] * 395


def test_all_events_are_trained_on_where_most_keys_are_new() -> None:
    events = _events(_regular(), np.arange(400) // 2)
    derivation, inputs, rows = derive_inputs(_training(events, EventSettings(derive=NAMES)))
    assert derivation is not None
    assert rows.all()
    assert np.isfinite(inputs).all()


def test_a_model_with_missing_values_scores_events_with_missing_values() -> None:
    events = _events(_regular())
    events.features[::7, 1] = np.nan
    settings = EventSettings(derive="auto", missing="mean")
    fitted = fit_model(_training(events, settings), ModelSettings(n_components=1))
    record = ModelRecord(
        id=1,
        version=1,
        kind=fitted.new_model.kind,
        state="active",
        created_at_us=0,
        valid_from_us=0,
        feature_names=tuple(fitted.new_model.feature_names),
        summary=fitted.new_model.summary,
    )
    assert record.derived_fields == NAMES
    scorer = Scorer(lambda _: load_model(record, fitted.new_model.artefact, "cpu"))
    with_history, _ = KeyedSource.from_rows([], FieldHistory(n_fields=2)).derive(events)
    measured = scorer.measure(with_history.features, 1)
    assert np.isfinite(measured.energies).all()
    assert np.array_equal(measured.energies, scorer.energies(with_history.features, 1))
    assert measured.codes is not None
    assert measured.codes.ranks.shape == (400, 3), "drift watches the raw fields and the energy"
    assert measured.codes.shares is None
    assert measured.derived_names == ("x.change", "y.change", "x.roughness", "y.roughness")
