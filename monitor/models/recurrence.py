"""Recurrence: decide which proposed outliers are modes of the stream, and which come in episodes. Pure functions.

Screening proposes events with large energies. In a stream they are often normal: a rare mode that the core of a tenth
less does not contain. Outliers that are scattered around the body have no neighbours; events of a mode do:

* A proposed event recurs if another proposed event at least a tenth of the events away is near. It is an event of a
  mode and belongs to the model.
* A proposed event is in an episode if another proposed event within a hundredth of the events is near. Episodes in at
  least `MIN_EPISODE_TENTHS` tenths of the events are part of the stream: the model is fitted without them, but the
  reference has them. A flood occurs in one tenth.

Near means a distance of at most half the own distance to the kept events, in standard deviations, and so small that
events scattered in all directions rarely have a neighbour by chance. An event among m that are scattered in D
dimensions has on average about m r^D / D neighbours within r times its own distance. In one dimension, scattered events
are often near each other; with many features almost never.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from monitor.statistics.training_profile import Floats

MAX_RELATIVE_DISTANCE = 0.5
MAX_CHANCE_NEIGHBOURS = 0.02
MIN_EPISODE_TENTHS = 3

_TENTHS = 10
_EPISODE_DIVISOR = 100
_MAX_POINTS = 5_000
"""Maximum number of kept events and of neighbours, evenly spaced, so that the time grows in proportion to n only."""

_CHUNK = 256

Bool = NDArray[np.bool_]
Int = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """Masks over all events, (n,): `recurring` ones are of a mode, `episodic` ones of episodes that are usual."""

    recurring: Bool
    episodic: Bool


def find_recurring(features: Floats, proposed: Bool) -> Recurrence:
    """Return which proposed outliers recur, and which are of usual episodes.

    The time is in proportion to the number of proposed events, with distances to at most 5,000 others each.

    Args:
        features: The features of all events in their order, (n, D), without missing values.
        proposed: The events that screening proposes to exclude, (n,); not all of them.
    """
    n = len(features)
    rows = np.flatnonzero(proposed)
    recurring, episodic = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    deviation = features.std(axis=0, dtype=np.float64)
    varying = deviation > 0
    if not len(rows) or not varying.any():
        return Recurrence(recurring=recurring, episodic=episodic)
    standardised = features[:, varying].astype(np.float64)
    standardised -= np.median(standardised, axis=0)
    standardised /= deviation[varying]
    body = standardised[_space_evenly(np.flatnonzero(~proposed), _MAX_POINTS)]
    to_body, far, near = _nearest_distances(standardised, rows, body, n)
    n_features = int(varying.sum())
    recurs = far <= _max_relative_distance(min(len(rows), _MAX_POINTS), n_features) * to_body
    n_within = max(1, 2 * len(rows) // _EPISODE_DIVISOR)
    in_episode = (near <= _max_relative_distance(n_within, n_features) * to_body) & ~recurs
    recurring[rows[recurs]] = True
    episodic[_usual_episodes(rows[in_episode], n)] = True
    return Recurrence(recurring=recurring, episodic=episodic)


def _nearest_distances(standardised: Float64, rows: Int, body: Float64, n: int) -> tuple[Float64, Float64, Float64]:
    """Return the distances to the body, to the nearest proposed event far in order, and to the nearest close in order.

    Each has the shape (proposed,); infinity without a neighbour.
    """
    neighbours = _space_evenly(rows, _MAX_POINTS)
    points = standardised[neighbours]
    to_body, far, near = (np.empty(len(rows)) for _ in range(3))
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        place = slice(start, start + len(chunk))
        to_body[place] = cdist(standardised[chunk], body).min(axis=1, initial=np.inf)
        distances = cdist(standardised[chunk], points)
        apart = np.abs(chunk[:, None] - neighbours)
        far[place] = np.where(apart * _TENTHS >= n, distances, np.inf).min(axis=1)
        close = (apart > 0) & (apart * _EPISODE_DIVISOR < n)
        near[place] = np.where(close, distances, np.inf).min(axis=1)
    return to_body, far, near


def _max_relative_distance(n_neighbours: int, n_features: int) -> float:
    """Return the distance to a neighbour, relative to the distance to the body, that scattered events rarely reach."""
    return float(min(MAX_RELATIVE_DISTANCE, (MAX_CHANCE_NEIGHBOURS / n_neighbours) ** (1 / n_features)))


def _usual_episodes(rows: Int, n: int) -> Int:
    """Return the rows of episodes that are usual: no tenth has more than the tenth with the third most rows.

    A flood in one tenth thus adds no more to the reference than the episodes of other times.
    """
    tenths = rows * _TENTHS // n
    limit = int(np.sort(np.bincount(tenths, minlength=_TENTHS))[-MIN_EPISODE_TENTHS])
    return np.concatenate([_space_evenly(rows[tenths == tenth], limit) for tenth in range(_TENTHS)])


def _space_evenly(rows: NDArray[Any], most: int) -> NDArray[Any]:
    """Return at most `most` evenly spaced rows."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)] if most else rows[:0]
