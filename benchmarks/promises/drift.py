"""Drift: false alarms over promised ones on window summaries, and what is found of a change.

Summaries of one horizon are Gaussian and autocorrelated over horizons; in the table of power they are mean ranks and
products of pairs of real draws of 30 features, by the sums that the daemon adds up.
"""

import tempfile
import time

import numpy as np
from scipy import signal, stats

from benchmarks.promises import table
from monitor.incidents.drift_horizons import DriftState, Horizon, judge_horizon, learn_baseline, learn_seasonal_baseline
from monitor.incidents.drift_test import fit_baseline, judge_drift
from monitor.statistics.drift_means import DriftStatistics, join_sums
from monitor.statistics.drift_sums import code_events, pack_drift_sums
from monitor.statistics.training_profile import N_BINS, TrainingProfile, build_feature_profile, quantile_edges
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade

ALPHA = 1e-3
STATISTICS = 40
FEATURES, EVENTS = 30, 6000
DAY = 144
JUDGED = 1000
FEW_ALPHA = 1e-4
TEN_MINUTES_US = 600_000_000


def _waves(rng: np.random.Generator, blocks: int, rho: float) -> np.ndarray:
    noise = rng.standard_normal((blocks + 200, STATISTICS), dtype=np.float32)
    return np.asarray(signal.lfilter(np.float32([1]), np.float32([1, -rho]), noise, axis=0)[200:], np.float64)


def _promise(times: int, seed: int) -> None:
    units = np.ones(STATISTICS)
    rows: list[list[object]] = []
    kept: list[bool] = []
    for rho in (0.0, 0.5, 0.9):
        for blocks in (30, 100, 300):
            rng = np.random.default_rng([seed, int(rho * 10), blocks])
            fired = dict.fromkeys(("predictive t", "mean + 3 sigma", "plain percentile"), 0)
            for _ in range(times):
                x = _waves(rng, blocks + 30, rho)
                past, now = x[:blocks], x[-1]
                base = fit_baseline(past, np.full(blocks, EVENTS), units)
                verdict = judge_drift(base, now, EVENTS, units, alpha=ALPHA, min_effect=0)
                fired["predictive t"] += bool(verdict and verdict.drifted)
                fired["mean + 3 sigma"] += bool((np.abs(now - past.mean(axis=0)) > 3 * past.std(axis=0)).any())
                fired["plain percentile"] += bool(((now > past.max(axis=0)) | (now < past.min(axis=0))).any())
            rows.extend([rho, blocks, name, count / times / ALPHA] for name, count in fired.items())
            if rho <= 0.5:
                realised = fired["predictive t"] / times / ALPHA
                kept.append((0.5 if blocks >= 100 else 0) <= realised <= 2)
    rows.append(["any", "any", "always fire", 1 / ALPHA])
    table.show(
        f"{STATISTICS} statistics, promised {ALPHA:g} a horizon, effect floor off; {times:,} draws a row",
        ("rho", "base", "alarm by", "false / promised"),
        rows,
    )
    print(
        f"\npredictive t, rho <= .5: at most 2, with a base of 100 and more in [1/2, 2]: kept in {sum(kept)} of "
        f"{len(kept)} rows"
    )


def _by_base(times: int, seed: int) -> None:
    """Print how the promise falls out for those who have one base: what the next horizon does is then known exactly."""
    units = np.ones(STATISTICS)
    rows: list[list[object]] = []
    for blocks in (30, 72, 144, 300):
        rng = np.random.default_rng([seed, 5, blocks])
        rates: dict[str, list[float]] = {"predictive t": [], "mean + 3 sigma": []}
        for _ in range(times):
            past = _waves(rng, blocks, 0)
            base = fit_baseline(past, np.full(blocks, EVENTS), units)
            limit = stats.t(base.dof).isf(ALPHA / (2 * STATISTICS))
            rates["predictive t"].append(_outside(base.mean, limit * base.deviation * np.sqrt(1 + 1 / base.effective)))
            rates["mean + 3 sigma"].append(_outside(past.mean(axis=0), 3 * past.std(axis=0)))
        for name, found in rates.items():
            of_promised = np.array(found) / ALPHA
            tail = np.quantile(of_promised, (0.5, 0.95)).tolist()
            rows.append([blocks, name, float(of_promised.mean()), f"{(of_promised <= 2).mean():.0%}", *tail])
    rows.append(["any", "always fire", 1 / ALPHA, "0%", 1 / ALPHA, 1 / ALPHA])
    table.show(
        f"by base, rho 0, exact given the base; {times:,} bases a row",
        ("base", "alarm by", "mean", "share <= 2", "median", "95%"),
        rows,
    )


def _outside(middle: np.ndarray, width: np.ndarray) -> float:
    """Return the probability that any of independent standard normal statistics lies so far from the middle."""
    beyond = stats.norm.sf(middle + width) + stats.norm.sf(width - middle)
    return float(-np.expm1(np.log1p(-beyond).sum()))


def _few_events(bases: int, seed: int) -> None:
    """Print what becomes of the promise where a horizon has few events, or many that are nearly the same one."""
    rows: list[list[object]] = []
    names = ("x0", "x1", "x2")
    for rho, events in ((0.0, 200), (0.5, 200), (0.9, 200), (0.9, 2000)):
        rng = np.random.default_rng([seed, 13, int(rho * 10), events])
        statistics = DriftStatistics(features=names, shape=(4, 0, 3), profile=_yardstick(3, rng))
        fired, by_pairs, verdicts, three = 0, 0, 0, 0
        for _ in range(bases):
            noise = rng.standard_normal(((DAY + JUDGED) * events, 3), dtype=np.float32) * np.float32(
                np.sqrt(1 - rho**2)
            )
            x = np.asarray(signal.lfilter(np.float32([1]), np.float32([1, -rho]), noise, axis=0), np.float32)
            codes = code_events(statistics.profile, x, _energies(x), None)
            cuts = [slice(at, at + events) for at in range(0, len(x), events)]
            means = np.array([statistics.means(join_sums(codes.sum_rows(cut)), events) for cut in cuts])
            past, units = means[:DAY], statistics.units(means.mean(axis=0))
            base = fit_baseline(past, np.full(DAY, events), units)
            for now in means[DAY:]:
                verdict = judge_drift(base, now, events, units, alpha=FEW_ALPHA, min_effect=0)
                assert verdict is not None
                verdicts += 1
                fired += bool(verdict.drifted)
                by_pairs += any(statistics.statistic_at(place).name == "pair" for place in verdict.drifted)
                three += bool((np.abs(now - past.mean(axis=0)) > 3 * past.std(axis=0)).any())
        promised = FEW_ALPHA * verdicts
        rows.append(
            [rho, events, events * (1 - rho) / (1 + rho), fired / promised, by_pairs / promised, three / promised]
        )
    rows.append(["any", "any", "any", 1 / FEW_ALPHA, 1 / FEW_ALPHA, 1 / FEW_ALPHA])
    table.show(
        f"autocorrelated events themselves, 3 features, base of {DAY} horizons, promised {FEW_ALPHA:g}; "
        f"{bases * JUDGED:,} horizons a row, the last row fires always",
        ("rho of events", "events", "worth", "false / promised", "of pairs", "mean + 3 sigma"),
        rows,
    )


def _season(times: int, seed: int) -> None:
    """Print what a daily sine does to a base of some hours and to the daemon's differences against days before."""
    rng = np.random.default_rng([seed, 7])
    ranks = STATISTICS // 2
    names = tuple(f"x{j}" for j in range(ranks - 1))
    statistics = DriftStatistics(features=names, shape=(ranks, 0, 0), profile=_yardstick(ranks - 1, rng))
    units = np.ones(STATISTICS)
    rows: list[list[object]] = []
    for swing in (0.0, 3.0):
        fired = {"six hours": 0, "six hours, mean + 3 sigma": 0, "days before (the daemon's)": 0}
        verdicts = 0
        for _ in range(times):
            x = _waves(rng, 8 * DAY, 0) + swing * np.sin(2 * np.pi * np.arange(8 * DAY) / DAY)[:, None]
            horizons = {i * TEN_MINUTES_US: _horizon(i * TEN_MINUTES_US, row) for i, row in enumerate(x)}
            hours = x[: DAY // 4]
            base = fit_baseline(hours, np.full(len(hours), EVENTS), units)
            first = [horizons[start] for start in list(horizons)[:DAY]]
            plain = learn_baseline(TEN_MINUTES_US, first, statistics, DAY * TEN_MINUTES_US)
            assert plain is not None
            learning = {start: each for start, each in horizons.items() if start < 5 * DAY * TEN_MINUTES_US}
            season = learn_seasonal_baseline(learning, plain, DriftState(), statistics, 5 * DAY * TEN_MINUTES_US)
            assert season is not None
            for start, now in list(zip(horizons, x, strict=True))[-DAY:]:
                verdicts += 1
                verdict = judge_drift(base, now, EVENTS, units, alpha=ALPHA, min_effect=0)
                fired["six hours"] += bool(verdict and verdict.drifted)
                away = np.abs(now - hours.mean(axis=0)) > 3 * hours.std(axis=0)
                fired["six hours, mean + 3 sigma"] += bool(away.any())
                judged = judge_horizon(
                    horizons,
                    start,
                    plain,
                    season,
                    DriftState(),
                    statistics,
                    alpha=ALPHA,
                    min_effect=0,
                    exceedance=0.01,
                )
                fired["days before (the daemon's)"] += bool(judged and judged.verdict.drifted)
        rows.extend([f"+-{swing:g} sd", name, count / verdicts / ALPHA] for name, count in fired.items())
    rows.append(["any", "always fire", 1 / ALPHA])
    table.show(
        f"a daily sine, in deviations of a horizon's mean; {times * DAY:,} horizons of 10 m a row",
        ("daily", "compared with", "false / promised"),
        rows,
    )


def _horizon(start_us: int, deviations: np.ndarray) -> Horizon:
    """Return a horizon whose means lie so many deviations, of 0.003 each, from what training has."""
    ranks = STATISTICS // 2
    unit = np.repeat([2.0 * N_BINS, (2.0 * N_BINS) ** 2], ranks)
    sums = np.rint(0.003 * deviations * unit * EVENTS).astype(np.int64)
    return Horizon(start_us=start_us, events=EVENTS, outliers=0, has_spike=False, sums=sums)


def _yardstick(d: int, rng: np.random.Generator) -> TrainingProfile:
    training = rng.standard_normal((20_000, d)).astype(np.float32)
    return TrainingProfile(features=build_feature_profile(training), energy_edges=quantile_edges(_energies(training)))


def _energies(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * np.square(x, dtype=np.float64).sum(axis=1), np.float32)


def _means(x: np.ndarray, statistics: DriftStatistics) -> np.ndarray:
    """Return the means of one horizon by the daemon's own sums."""
    sums = code_events(statistics.profile, x, _energies(x), None).sum_rows(slice(None))
    return statistics.means(join_sums(sums), len(x))


def _changed(x: np.ndarray, change: str) -> np.ndarray:
    if change == "0.2 sigma in x4":
        x[:, 4] += 0.2
    elif change == "correlation 0.3 of x4 and x9":
        x[:, 9] = 0.3 * x[:, 4] + np.sqrt(1 - 0.09) * x[:, 9]
    return x


def _power(times: int, seed: int) -> None:
    """Print what is found by the whole of a horizon's statistics, and what the features alone would find."""
    rng = np.random.default_rng([seed, 9])
    pairs = FEATURES * (FEATURES - 1) // 2
    names = tuple(f"x{j}" for j in range(FEATURES))
    statistics = DriftStatistics(features=names, shape=(FEATURES + 1, 0, pairs), profile=_yardstick(FEATURES, rng))
    draw = lambda: rng.standard_normal((EVENTS, FEATURES), dtype=np.float32)  # noqa: E731 - a name for a draw
    past = np.array([_means(draw(), statistics) for _ in range(60)])
    units = statistics.units(past.mean(axis=0))
    base = fit_baseline(past, np.full(60, EVENTS), units)
    own = slice(0, FEATURES)
    sigma, low, high = past.std(axis=0)[own], past.min(axis=0)[own], past.max(axis=0)[own]
    rows: list[list[object]] = []
    right = {"0.2 sigma in x4": "rank of x4", "correlation 0.3 of x4 and x9": "pair of x4 * x9"}
    for change in ("none", *right):
        found = first = three = outside = 0
        for _ in range(times):
            now = _means(_changed(draw(), change), statistics)
            verdict = judge_drift(base, now, EVENTS, units, alpha=ALPHA, min_effect=0.1)
            assert verdict is not None
            found += bool(verdict.drifted)
            first += [str(statistics.statistic_at(place)) for place in verdict.drifted[:1]] == [right.get(change)]
            three += bool((np.abs(now[own] - past.mean(axis=0)[own]) > 3 * sigma).any())
            outside += bool(((now[own] > high) | (now[own] < low)).any())
        shares = [f"{count / times:.0%}" for count in (found, first, three, outside)]
        rows.append([change, shares[0], shares[1] if change in right else "-", *shares[2:], "100%"])
    table.show(
        f"one horizon of {EVENTS:,} events, {FEATURES} features and {pairs} pairs ({len(statistics)} statistics), base "
        f"of 60 horizons, effect >= 0.1; beside it mean ranks alone, by mean + 3 sigma and by the range of the base",
        ("change", "found", "named first", "mean + 3 sigma", "plain range", "always fire"),
        rows,
    )


def _cost(seed: int) -> None:
    """Print what drift costs an event, beside what its row in SQLite costs."""
    rng = np.random.default_rng([seed, 11])
    rows: list[list[object]] = []
    for d, k in ((4, 3), (30, 3), (120, 8), (200, 8)):
        yardstick = _yardstick(d, rng)
        x = rng.standard_normal((5_000, d), dtype=np.float32)
        energies, shares = _energies(x), rng.dirichlet(np.ones(k), len(x)).astype(np.float32)
        took = []
        for _ in range(10):
            begun = time.process_time()
            sums = code_events(yardstick, x, energies, shares).sum_rows(slice(None))
            took.append(time.process_time() - begun)
        section = pack_drift_sums(sums)
        size = sum(len(raw or b"") for raw in (section.ranks, section.squares, section.occupancy, section.pairs))
        rows.append([d, k, 1e6 * min(took) / len(x), size])
    table.show(
        f"cost of drift: CPU, best of 10 batches of 5,000 events; a row of scores in SQLite takes {_row_us():.1f} us",
        ("features", "components", "us an event", "bytes a window"),
        rows,
    )


def _row_us() -> float:
    """Return the best time of a stored score, by the ledger's own statement and transaction."""
    n = 5_000
    with tempfile.TemporaryDirectory() as folder, Database(f"sqlite:///{folder}/outrider.db") as db:
        upgrade(db)
        took = []
        for batch in range(5):
            columns = ["source_id", "source_offset", "event_time_us", "energy", "threshold_id", "stored_at_us"]
            values = [(1, batch * n + i, i, 1.0, 1, 0) for i in range(n)]
            insert = f"INSERT INTO scores ({', '.join(columns)}) VALUES (?, ?, ?, ?, ?, ?)"
            begun = time.process_time()
            with db.write() as connection:
                connection.exec_driver_sql(insert, values)
            took.append(time.process_time() - begun)
    return 1e6 * min(took) / n


def show(*, quick: bool, seed: int) -> None:
    """Print the tables of drift."""
    print("DRIFT: false alarms / promised of one verdict over all statistics; 1 is kept, above 2 is broken")
    print(f"seed {seed}")
    _promise(times=1500 if quick else 20_000, seed=seed)
    _by_base(times=300 if quick else 2000, seed=seed)
    _few_events(bases=3 if quick else 40, seed=seed)
    _season(times=2 if quick else 20, seed=seed)
    _power(times=10 if quick else 100, seed=seed)
    _cost(seed)
