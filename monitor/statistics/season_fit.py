"""Learning and testing the season of the outlier rate. Pure functions.

Each cycle has its own level, so that a threshold, a model or a level that changes from cycle to cycle does not look
like a season. The coefficients maximise the quasi-Poisson likelihood (Wedderburn 1974) given the total of each cycle,
and are shrunk towards 0 by the share of their squares that chance explains (James and Stein 1961).

Chance is measured by a dispersion D: the larger of the Pearson dispersion of the cells and of the variance of the
scores between cycles (Liang and Zeger 1986). The second is the larger one where the rate wanders within a cycle. A
season is active if an F test of the deviance, divided by D, is significant and if the coefficients of earlier cycles
predict the later ones better than a constant rate (Dawid 1984). Sums run in a fixed order, so that a replay on the same
machine gives the same coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from config.time_format import DAY_US, HOUR_US
from monitor.statistics.part import Int64
from monitor.statistics.season import (
    Floats,
    Season,
    SeasonKind,
    SeasonSetting,
    SeasonState,
    SeasonTest,
    build_columns,
    count_day_harmonics,
    find_local_day,
    is_season_possible,
    sum_columns,
    to_local,
)

LEARNING_DAYS = 28
"""The longest span that a season is learned from, in days of local time."""

MIN_CYCLES = 3
"""The number of cycles with events from which a season can be active. The later ones test what the first ones say."""

ACTIVATION_LEVEL = 0.01
"""The largest p-value of the F test at which a season becomes active. Without a season and with dispersion 2 the tests
activated one in at most 1.2% of 250 simulated streams, with a wandering rate in at most 2.4%."""

ACTIVATION_GAIN = 1.0
"""The smallest gain in the prediction of later cycles, in nats divided by D, at which a season becomes active."""

KEEPING_LEVEL = 0.05
"""The largest p-value at which an active season stays active, with any positive gain: it does not flap."""

_PRIOR_DEVIATION = 1.0
"""Standard deviation of a coefficient before any data. It bounds the rate of hours without outliers."""

_PILOT_STEPS = 10
_FINAL_STEPS = 5
_LARGEST_STEP = 2.0
_MIN_COVERAGE = 0.5
"""A cycle counts if it has events in at least this share of the cells of the fullest cycle."""

_MIN_FIRST_SPAN = 0.7
"""The first cycle counts if its first events are at least this share of a cycle old: five days of a week."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCounts:
    """Events and outliers of clean windows in cells of time: hours, or windows that are longer.

    Attributes:
        mid_us: Middle of each cell, in microseconds since 1970, ascending, (n,).
        events: Events of each cell, (n,).
        outliers: Outliers of each cell, (n,).
    """

    mid_us: Int64
    events: Int64
    outliers: Int64


def decide_season(
    counts: CellCounts,
    before: SeasonState | None,
    setting: SeasonSetting,
    timezone: str,
    *,
    tick_us: int,
    size_us: int,
) -> SeasonState:
    """Fit and test the season on the whole local days before a tick.

    With `auto`, `hour_of_week` must improve on `hour_of_day` where that one is active.

    Args:
        counts: The counts of the clean windows; those of other days than the last `LEARNING_DAYS` are not used.
        before: The state before the tick. An active season of the same kind keeps its start.
        setting: `threshold.season`.
        timezone: `timezone`.
        tick_us: Event time of the tick.
        size_us: Length of a window.
    """
    day = find_local_day(tick_us, timezone)
    active = None if before is None or before.timezone != timezone else before.season
    tests: list[SeasonTest] = []
    season: Season | None = None
    kinds: tuple[SeasonKind, ...] = ("hour_of_day", "hour_of_week")
    for kind in kinds:
        if setting not in ("auto", kind) or not is_season_possible(kind, size_us):
            continue
        cells = _Cells.select(counts, kind, timezone, day, max(size_us, HOUR_US))
        base = 0 if season is None else cells.day_columns
        keep = active is not None and active.kind == kind
        test = _run_tests(cells, base, keep=keep)
        tests.append(test)
        if test.passed:
            since_us = active.since_us if active is not None and keep else tick_us
            season = _fit_season(cells, timezone, since_us)
    return SeasonState(setting=setting, timezone=timezone, day=day, season=season, tests=tuple(tests))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cells:
    """The cells of the whole cycles before a tick: regressors (n, p), counts (n,), and the cycle of each cell."""

    kind: SeasonKind
    columns: Floats
    day_columns: int
    events: Floats
    outliers: Floats
    cycle: Int64
    cycles: int

    @staticmethod
    def select(counts: CellCounts, kind: SeasonKind, timezone: str, day: int, cell_us: int) -> "_Cells":
        """Return the cells of the last `LEARNING_DAYS` before a local day, in cycles that have enough cells.

        Cycles are counted back from the day, and numbered from the oldest one.
        """
        local_us = to_local(counts.mid_us, timezone)
        age = day - 1 - local_us // DAY_US
        used = (age >= 0) & (age < LEARNING_DAYS) & (counts.events > 0)
        length = 1 if kind == "hour_of_day" else 7
        back = age[used] // length
        per_cycle = np.bincount(back) if len(back) else np.zeros(0, np.int64)
        is_full = per_cycle >= max(_MIN_COVERAGE * per_cycle.max(initial=0), 1)
        if len(back):
            days_of_oldest = int(age[used].max()) - length * int(back.max()) + 1
            is_full[-1] &= days_of_oldest >= _MIN_FIRST_SPAN * length
        number = np.cumsum(is_full[::-1])[::-1] - 1
        kept = is_full[back]
        day_harmonics = count_day_harmonics(cell_us)
        return _Cells(
            kind=kind,
            columns=build_columns(local_us[used][kept], kind, day_harmonics),
            day_columns=2 * day_harmonics,
            events=counts.events[used][kept].astype(np.float64),
            outliers=counts.outliers[used][kept].astype(np.float64),
            cycle=number[back[kept]],
            cycles=int(is_full.sum()),
        )

    def take(self, mask: NDArray[np.bool_], cycles: int) -> "_Cells":
        """Return the cells of a mask, in the first `cycles` cycles."""
        return _Cells(
            kind=self.kind,
            columns=self.columns[mask],
            day_columns=self.day_columns,
            events=self.events[mask],
            outliers=self.outliers[mask],
            cycle=self.cycle[mask],
            cycles=cycles,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """A fit: shrunk coefficients (p,), means of the cells before the shrinkage (n,), dispersion and free parameters."""

    coefficients: Floats
    means: Floats
    dispersion: float
    parameters: float
    degrees_of_freedom: int


def _run_tests(cells: _Cells, base_columns: int, *, keep: bool) -> SeasonTest:
    """Test a season against the model of its first `base_columns` columns; with none of them, against a constant."""
    if cells.cycles < MIN_CYCLES or not cells.outliers.any():
        return SeasonTest(kind=cells.kind, cycles=cells.cycles)
    all_columns = cells.columns.shape[1]
    fit = _fit_cells(cells, all_columns)
    base = _fit_cells(cells, base_columns)
    gained = max(_deviance(cells.outliers, base.means) - _deviance(cells.outliers, fit.means), 0.0)
    added = all_columns - base_columns
    p_value = float(special.fdtrc(added, fit.degrees_of_freedom, gained / added / fit.dispersion))
    gain = 0.0
    if p_value <= KEEPING_LEVEL:
        gain = sum(_predict_cycle(cells, cycle, base_columns) for cycle in range(1, cells.cycles)) / fit.dispersion
    passed = (p_value <= ACTIVATION_LEVEL and gain >= ACTIVATION_GAIN) or (
        keep and p_value <= KEEPING_LEVEL and gain > 0
    )
    return SeasonTest(kind=cells.kind, cycles=cells.cycles, p_value=p_value, gain=gain, passed=passed)


def _predict_cycle(cells: _Cells, cycle: int, base_columns: int) -> float:
    """Return the gain in log-likelihood of a cycle, given its total, by the season of the cycles before it, in nats."""
    past, now = cells.take(cells.cycle < cycle, cycle), cells.cycle == cycle
    log_ratio = np.zeros(int(now.sum()))
    for columns, sign in ((cells.columns.shape[1], 1.0), (base_columns, -1.0)):
        learned = _fit_cells(past, columns).coefficients
        weights = cells.events[now] * np.exp(sum_columns(cells.columns[now, :columns], learned))
        log_ratio += sign * np.log(weights / weights.sum())
    return float((cells.outliers[now] * log_ratio).sum())


def _fit_season(cells: _Cells, timezone: str, since_us: int) -> Season:
    fit = _fit_cells(cells, cells.columns.shape[1])
    raw = np.exp(sum_columns(cells.columns, fit.coefficients))
    level = float(np.log((cells.events * raw).sum() / cells.events.sum()))
    return Season(
        kind=cells.kind,
        timezone=timezone,
        coefficients=tuple(fit.coefficients.tolist()),
        level=level,
        exposure=float(cells.events.sum()),
        parameters=fit.parameters,
        since_us=since_us,
    )


def _fit_cells(cells: _Cells, columns: int) -> _Fit:
    """Fit the first `columns` columns: a pilot measures the dispersion, which then weighs the prior."""
    x, z = cells.outliers, cells.columns[:, :columns]
    degrees_of_freedom = max(len(x) - cells.cycles - columns, 1)
    if not columns or not x.any():
        means = _cell_means(cells, z, np.zeros(columns))
        return _Fit(
            coefficients=np.zeros(columns),
            means=means,
            dispersion=1.0,
            parameters=0.0,
            degrees_of_freedom=degrees_of_freedom,
        )
    zero = np.zeros(columns)
    pilot, information = _maximise(cells, z, zero, steps=_PILOT_STEPS, prior_precision=1 / _PRIOR_DEVIATION**2)
    dispersion = _estimate_season_dispersion(cells, z, pilot, information, degrees_of_freedom)
    precision = dispersion / _PRIOR_DEVIATION**2
    coefficients, information = _maximise(cells, z, pilot, steps=_FINAL_STEPS, prior_precision=precision)
    weights = _shrinkage(coefficients, _inverse_diagonal(information) * dispersion)
    return _Fit(
        coefficients=coefficients * weights,
        means=_cell_means(cells, z, coefficients),
        dispersion=dispersion,
        parameters=float(weights.sum()),
        degrees_of_freedom=degrees_of_freedom,
    )


def _cell_means(cells: _Cells, z: Floats, coefficients: Floats) -> Floats:
    """Return the mean of each cell, (n,): its share of the outliers of its cycle."""
    weights = cells.events * np.exp(sum_columns(z, coefficients))
    share = weights / np.bincount(cells.cycle, weights, minlength=cells.cycles)[cells.cycle]
    return np.bincount(cells.cycle, cells.outliers, minlength=cells.cycles)[cells.cycle] * share


def _maximise(cells: _Cells, z: Floats, start: Floats, *, steps: int, prior_precision: float) -> tuple[Floats, Floats]:
    """Maximise the penalised likelihood by Newton's method with a fixed number of steps.

    The likelihood is concave. A step changes no logarithm of a rate by more than `_LARGEST_STEP`.

    Returns:
        The coefficients (p,) and the information (p, p).
    """
    coefficients = start
    for _ in range(steps):
        score, information = _score_and_information(cells, z, coefficients, prior_precision)
        step = np.asarray(np.linalg.solve(information, score), np.float64)
        largest = float(np.abs(sum_columns(z, step)).max())
        coefficients = coefficients + step * min(1.0, _LARGEST_STEP / max(largest, 1e-300))
    return coefficients, _score_and_information(cells, z, coefficients, prior_precision)[1]


def _score_and_information(
    cells: _Cells, z: Floats, coefficients: Floats, prior_precision: float
) -> tuple[Floats, Floats]:
    means = _cell_means(cells, z, coefficients)
    centred = _centre(cells, z, means)
    score = (z * (cells.outliers - means)[:, None]).sum(axis=0) - prior_precision * coefficients
    information = (centred[:, :, None] * centred[:, None, :] * means[:, None, None]).sum(axis=0)
    return score, information + prior_precision * np.eye(z.shape[1])


def _centre(cells: _Cells, z: Floats, means: Floats) -> Floats:
    """Return the columns less their mean in the cycle, weighted with the means of the cells, (n, p)."""
    total = np.maximum(np.bincount(cells.cycle, means, minlength=cells.cycles), 1e-300)
    averages = [np.bincount(cells.cycle, means * z[:, j], minlength=cells.cycles) / total for j in range(z.shape[1])]
    return z - np.stack(averages, axis=1)[cells.cycle]


def _estimate_season_dispersion(
    cells: _Cells, z: Floats, coefficients: Floats, information: Floats, degrees_of_freedom: int
) -> float:
    """Return the larger of the dispersion of the cells and that of the scores between cycles, at least 1."""
    means = _cell_means(cells, z, coefficients)
    residuals = cells.outliers - means
    pearson: float = (residuals**2 / np.maximum(means, 1e-12)).sum() / degrees_of_freedom
    if cells.cycles < 2:
        return max(pearson, 1.0)
    centred = _centre(cells, z, means)
    scores = np.stack(
        [np.bincount(cells.cycle, residuals * centred[:, j], minlength=cells.cycles) for j in range(z.shape[1])], axis=1
    )
    variance = (scores[:, :, None] * scores[:, None, :]).sum(axis=0) * cells.cycles / (cells.cycles - 1)
    between = float(np.trace(np.linalg.solve(information, variance))) / z.shape[1]
    dispersion: float = max(pearson, between, 1.0)
    return dispersion


def _shrinkage(coefficients: Floats, variances: Floats) -> Floats:
    """Return the weight of each coefficient, (p,): the share of the square of its harmonic that chance leaves."""
    weights = np.zeros(len(coefficients))
    groups: Sequence[slice] = [slice(j, min(j + 2, len(coefficients))) for j in range(0, len(coefficients), 2)]
    for group in groups:
        chance = float(variances[group].mean())
        signal = max(float((coefficients[group] ** 2).mean()) - chance, 0.0)
        weights[group] = signal / (signal + chance)
    return weights


def _inverse_diagonal(information: Floats) -> Floats:
    return np.ascontiguousarray(np.diag(np.linalg.inv(information)), np.float64)


def _deviance(outliers: Floats, means: Floats) -> float:
    some = outliers > 0
    terms: Floats = outliers[some] * np.log(outliers[some] / means[some])
    return 2 * float(terms.sum())
