"""Derived features of a data frame, equal to those of the daemon for equal histories of a key."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.detectors.derivation import ATTRIBUTE, derive_all
from monitor.detectors.detector import Detector
from monitor.statistics.key_states import FieldHistory, KeyStates


def derive(
    frame: Any,
    *,
    key: str | None = None,
    time: str | None = None,
    features: Sequence[str] | None = None,
    like: Detector | None = None,
) -> Any:
    """Return the features of a data frame together with those that are derived from earlier rows of the same key.

        train = derive(past, key="host", time="ts")
        model = GaussianMixture("auto").fit(train).calibrate(train)
        model.energy(derive(live, key="host", time="ts", like=model))

    A field `amount` has the derived features `amount.change`, the distance from the recent level of its key, and
    `amount.roughness`, the logarithm of its recent mean step over that of the frame (or of the model's training rows).
    A model that is fitted on the result stores the derivation, so that the daemon computes the same.

    Args:
        frame: A pandas data frame, its rows in the order in which the daemon would read them.
        key: The column of the key; None if all rows are of one key.
        time: The column of the time, as datetimes or seconds; after a long pause of a key its history begins anew.
            None: there are no pauses.
        features: The columns to use; by default all numeric ones apart from key and time, or those of `like`.
        like: A model with derived features; its own are returned, with its training steps.

    Raises:
        ModelError: A column is missing, or `like` derives no features.
    """
    derivation = None if like is None else like.derivation_
    if like is not None and derivation is None:
        raise ModelError("derive: the model of `like` derives no features; use its columns as they are")
    names = tuple(derivation.fields if derivation is not None else features or _numeric_columns(frame, key, time))
    missing = [name for name in (*names, *(each for each in (key, time) if each)) if name not in frame.columns]
    if missing:
        raise ModelError(f"derive: the frame has no column {', '.join(missing)}; it has {', '.join(frame.columns)}")
    events = _with_history(frame, names, key, time)
    derivation = derivation or derive_all(names, events)
    derived = type(frame)(dict(zip(derivation.names, derivation.apply(events).T, strict=True)))
    derived.index = frame.index
    derived.attrs = {**frame.attrs, ATTRIBUTE: derivation}
    return derived


def _with_history(frame: Any, names: Sequence[str], key: str | None, time: str | None) -> NDArray[np.float64]:
    """Return the fields and their history, (n, 4 D)."""
    values = np.stack([np.asarray(frame[name], np.float64) for name in names], axis=1)
    keys = [None] * len(values) if key is None else [str(each) for each in frame[key]]
    times_us = np.zeros(len(values), np.int64) if time is None else _to_us(np.asarray(frame[time]))
    step = FieldHistory(n_fields=len(names))
    offsets = np.arange(len(values))
    history, _ = KeyStates.empty(step.width).advance(keys, offsets, times_us, values, step)
    return np.concatenate([values, history], axis=1)


def _numeric_columns(frame: Any, key: str | None, time: str | None) -> list[str]:
    return [name for name in frame.columns if name not in (key, time) and frame[name].dtype.kind in "fiu"]


def _to_us(times: NDArray[Any]) -> NDArray[np.int64]:
    if times.dtype.kind == "M":
        return times.astype("datetime64[us]").astype(np.int64)
    return np.round(times.astype(np.float64) * 1e6).astype(np.int64)
