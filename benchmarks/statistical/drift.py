"""Drift: ratio of realised to budgeted false alarms on window summaries, and the power to detect a change.

Summaries of one horizon are Gaussian and autocorrelated over horizons. In the table of power they are mean ranks and
products of pairs of samples with 30 features, computed from the same sums as in the daemon.
"""

import tempfile
import time

import numpy as np
from scipy import signal, stats

from benchmarks.statistical import table
from config.time_format import DAY_US
from monitor.incidents.drift_cycles import CycleTest, judge_cycle, prepare_cycles
from monitor.incidents.drift_days import Cycle
from monitor.incidents.drift_horizons import Horizon
from monitor.incidents.drift_test import FIRST_VERDICT_CYCLES, fit_baseline, judge_drift
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
DAYS = 60
DAY_ALPHA = 0.25 / 7


def _autocorrelated_means(rng: np.random.Generator, blocks: int, rho: float) -> np.ndarray:
    noise = rng.standard_normal((blocks + 200, STATISTICS), dtype=np.float32)
    return np.asarray(signal.lfilter(np.float32([1]), np.float32([1, -rho]), noise, axis=0)[200:], np.float64)


def _false_alarms(n_draws: int, seed: int) -> None:
    units = np.ones(STATISTICS)
    rows: list[list[object]] = []
    meets_budget: list[bool] = []
    for rho in (0.0, 0.5, 0.9):
        for blocks in (30, 100, 300):
            rng = np.random.default_rng([seed, int(rho * 10), blocks])
            fired = dict.fromkeys(("predictive t", "mean + 3 sigma", "plain percentile"), 0)
            for _ in range(n_draws):
                x = _autocorrelated_means(rng, blocks + 30, rho)
                past, now = x[:blocks], x[-1]
                base = fit_baseline(past, np.full(blocks, EVENTS), units)
                verdict = judge_drift(base, now, EVENTS, units, alpha=ALPHA, min_effect=0)
                fired["predictive t"] += bool(verdict and verdict.drifted)
                fired["mean + 3 sigma"] += bool((np.abs(now - past.mean(axis=0)) > 3 * past.std(axis=0)).any())
                fired["plain percentile"] += bool(((now > past.max(axis=0)) | (now < past.min(axis=0))).any())
            rows.extend([rho, blocks, name, count / n_draws / ALPHA] for name, count in fired.items())
            if rho <= 0.5:
                realised = fired["predictive t"] / n_draws / ALPHA
                meets_budget.append((0.5 if blocks >= 100 else 0) <= realised <= 2)
    rows.append(["any", "any", "always fire", 1 / ALPHA])
    table.show(
        f"{STATISTICS} statistics, budget {ALPHA:g} per horizon, no effect floor; {n_draws:,} draws per row",
        ("rho", "base", "alarm by", "false / budget"),
        rows,
    )
    print(
        f"\npredictive t, rho <= .5: at most 2, with a base of 100 and more in [1/2, 2]: met in {sum(meets_budget)} of "
        f"{len(meets_budget)} rows"
    )


def _by_base(n_draws: int, seed: int) -> None:
    """Print the distribution of the false-alarm probability over baselines. Given a baseline it is known exactly."""
    units = np.ones(STATISTICS)
    rows: list[list[object]] = []
    for blocks in (30, 72, 144, 300):
        rng = np.random.default_rng([seed, 5, blocks])
        rates: dict[str, list[float]] = {"predictive t": [], "mean + 3 sigma": []}
        for _ in range(n_draws):
            past = _autocorrelated_means(rng, blocks, 0)
            base = fit_baseline(past, np.full(blocks, EVENTS), units)
            limit = stats.t(base.dof).isf(ALPHA / (2 * STATISTICS))
            rates["predictive t"].append(
                _probability_outside(base.mean, limit * base.deviation * np.sqrt(1 + 1 / base.effective))
            )
            rates["mean + 3 sigma"].append(_probability_outside(past.mean(axis=0), 3 * past.std(axis=0)))
        for name, found in rates.items():
            of_budget = np.array(found) / ALPHA
            tail = np.quantile(of_budget, (0.5, 0.95)).tolist()
            rows.append([blocks, name, float(of_budget.mean()), f"{(of_budget <= 2).mean():.0%}", *tail])
    rows.append(["any", "always fire", 1 / ALPHA, "0%", 1 / ALPHA, 1 / ALPHA])
    table.show(
        f"by base, rho 0, exact given the base; {n_draws:,} bases per row",
        ("base", "alarm by", "mean", "share <= 2", "median", "95%"),
        rows,
    )


def _probability_outside(middle: np.ndarray, width: np.ndarray) -> float:
    """Return the probability that any of independent standard normal statistics lies outside middle +- width."""
    tails = stats.norm.sf(middle + width) + stats.norm.sf(width - middle)
    return float(-np.expm1(np.log1p(-tails).sum()))


def _few_events(bases: int, seed: int) -> None:
    """Print the false-alarm ratio for horizons with few events, or with strongly autocorrelated events."""
    rows: list[list[object]] = []
    names = ("x0", "x1", "x2")
    for rho, events in ((0.0, 200), (0.5, 200), (0.9, 200), (0.9, 2000)):
        rng = np.random.default_rng([seed, 13, int(rho * 10), events])
        statistics = DriftStatistics(features=names, shape=(4, 0, 3), profile=_training_profile(3, rng))
        fired, by_pairs, verdicts, n_three_sigma = 0, 0, 0, 0
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
                n_three_sigma += bool((np.abs(now - past.mean(axis=0)) > 3 * past.std(axis=0)).any())
        budget = FEW_ALPHA * verdicts
        rows.append(
            [rho, events, events * (1 - rho) / (1 + rho), fired / budget, by_pairs / budget, n_three_sigma / budget]
        )
    rows.append(["any", "any", "any", 1 / FEW_ALPHA, 1 / FEW_ALPHA, 1 / FEW_ALPHA])
    table.show(
        f"autocorrelated events themselves, 3 features, base of {DAY} horizons, budget {FEW_ALPHA:g}; "
        f"{bases * JUDGED:,} horizons per row; the last row always fires",
        ("rho of events", "events", "effective", "false / budget", "of pairs", "mean + 3 sigma"),
        rows,
    )


def _season(n_draws: int, seed: int) -> None:
    """Print the effect of a daily sine on a base of six hours, and on whole days as the daemon compares them."""
    rng = np.random.default_rng([seed, 7])
    ranks = STATISTICS // 2
    names = tuple(f"x{j}" for j in range(ranks - 1))
    statistics = DriftStatistics(features=names, shape=(ranks, 0, 0), profile=_training_profile(ranks - 1, rng))
    units = np.ones(STATISTICS)
    rows: list[list[object]] = []
    for amplitude in (0.0, 3.0):
        fired = {"six hours": 0, "six hours, mean + 3 sigma": 0, "whole days (as in the daemon)": 0}
        verdicts = days = 0
        for _ in range(n_draws):
            x = _autocorrelated_means(rng, DAYS * DAY, 0)
            x += amplitude * np.sin(2 * np.pi * np.arange(DAYS * DAY) / DAY)[:, None]
            hours = x[: DAY // 4]
            base = fit_baseline(hours, np.full(len(hours), EVENTS), units)
            for now in x[-DAY:]:
                verdicts += 1
                verdict = judge_drift(base, now, EVENTS, units, alpha=ALPHA, min_effect=0)
                fired["six hours"] += bool(verdict and verdict.drifted)
                is_outside = np.abs(now - hours.mean(axis=0)) > 3 * hours.std(axis=0)
                fired["six hours, mean + 3 sigma"] += bool(is_outside.any())
            cycles = [_day(number, each) for number, each in enumerate(x.reshape(DAYS, DAY, STATISTICS))]
            for end in range(FIRST_VERDICT_CYCLES, DAYS + 1):
                test = prepare_cycles(cycles[:end], DAY_US, statistics)
                assert isinstance(test, CycleTest)
                result = judge_cycle(test, DAY_US, {}, statistics, alpha=DAY_ALPHA, min_effect=0, exceedance=0.01)
                days += 1
                fired["whole days (as in the daemon)"] += bool(result.verdict.drifted)
        budgets = [ALPHA * verdicts, ALPHA * verdicts, DAY_ALPHA * days]
        rows.extend(
            [f"+-{amplitude:g} sd", name, count / budget]
            for (name, count), budget in zip(fired.items(), budgets, strict=True)
        )
    rows.append(["any", "always fire", 1 / ALPHA])
    table.show(
        f"a daily sine, in deviations of the mean of 10 m; {n_draws * DAY:,} horizons and {days:,} days per row",
        ("daily", "compared with", "false / budget"),
        rows,
    )


def _day(number: int, deviations: np.ndarray) -> Cycle:
    """Return a day whose horizons of 10 m are the given deviations, of 0.03 each, from the training means."""
    ranks = STATISTICS // 2
    unit = np.repeat([2.0 * N_BINS, (2.0 * N_BINS) ** 2], ranks)
    sums = np.rint(0.03 * deviations.sum(axis=0) * unit * EVENTS).astype(np.int64)
    start_us = number * DAY_US
    horizon = Horizon(start_us=start_us, events=EVENTS * DAY, outliers=0, has_spike=False, sums=sums)
    return Cycle(horizon=horizon, end_us=start_us + DAY_US, hours=24)


def _training_profile(d: int, rng: np.random.Generator) -> TrainingProfile:
    training = rng.standard_normal((20_000, d)).astype(np.float32)
    return TrainingProfile(features=build_feature_profile(training), energy_edges=quantile_edges(_energies(training)))


def _energies(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * np.square(x, dtype=np.float64).sum(axis=1), np.float32)


def _means(x: np.ndarray, statistics: DriftStatistics) -> np.ndarray:
    """Return the means of one horizon by the sums of the daemon."""
    sums = code_events(statistics.profile, x, _energies(x), None).sum_rows(slice(None))
    return statistics.means(join_sums(sums), len(x))


def _apply_change(x: np.ndarray, change: str) -> np.ndarray:
    if change == "0.2 sigma in x4":
        x[:, 4] += 0.2
    elif change == "correlation 0.3 of x4 and x9":
        x[:, 9] = 0.3 * x[:, 4] + np.sqrt(1 - 0.09) * x[:, 9]
    return x


def _power(n_draws: int, seed: int) -> None:
    """Print the power of all statistics of a horizon, and of the mean ranks of the features alone."""
    rng = np.random.default_rng([seed, 9])
    pairs = FEATURES * (FEATURES - 1) // 2
    names = tuple(f"x{j}" for j in range(FEATURES))
    statistics = DriftStatistics(
        features=names, shape=(FEATURES + 1, 0, pairs), profile=_training_profile(FEATURES, rng)
    )
    draw = lambda: rng.standard_normal((EVENTS, FEATURES), dtype=np.float32)  # noqa: E731 - short alias
    past = np.array([_means(draw(), statistics) for _ in range(60)])
    units = statistics.units(past.mean(axis=0))
    base = fit_baseline(past, np.full(60, EVENTS), units)
    ranks_only = slice(0, FEATURES)
    sigma, low, high = past.std(axis=0)[ranks_only], past.min(axis=0)[ranks_only], past.max(axis=0)[ranks_only]
    rows: list[list[object]] = []
    expected_statistic = {"0.2 sigma in x4": "rank of x4", "correlation 0.3 of x4 and x9": "pair of x4 * x9"}
    for change in ("none", *expected_statistic):
        found = first = n_three_sigma = outside = 0
        for _ in range(n_draws):
            now = _means(_apply_change(draw(), change), statistics)
            verdict = judge_drift(base, now, EVENTS, units, alpha=ALPHA, min_effect=0.1)
            assert verdict is not None
            found += bool(verdict.drifted)
            first += [str(statistics.statistic_at(place)) for place in verdict.drifted[:1]] == [
                expected_statistic.get(change)
            ]
            n_three_sigma += bool((np.abs(now[ranks_only] - past.mean(axis=0)[ranks_only]) > 3 * sigma).any())
            outside += bool(((now[ranks_only] > high) | (now[ranks_only] < low)).any())
        shares = [f"{count / n_draws:.0%}" for count in (found, first, n_three_sigma, outside)]
        rows.append([change, shares[0], shares[1] if change in expected_statistic else "-", *shares[2:], "100%"])
    table.show(
        f"one horizon of {EVENTS:,} events, {FEATURES} features and {pairs} pairs ({len(statistics)} statistics), base "
        f"of 60 horizons, effect >= 0.1; compared with mean ranks alone, by mean + 3 sigma and the range of the base",
        ("change", "detected", "ranked first", "mean + 3 sigma", "plain range", "always fire"),
        rows,
    )


def _cost(seed: int) -> None:
    """Print the cost of the drift statistics per event, beside the cost of its row in SQLite."""
    rng = np.random.default_rng([seed, 11])
    rows: list[list[object]] = []
    for d, k in ((4, 3), (30, 3), (120, 8), (200, 8)):
        training_profile = _training_profile(d, rng)
        x = rng.standard_normal((5_000, d), dtype=np.float32)
        energies, shares = _energies(x), rng.dirichlet(np.ones(k), len(x)).astype(np.float32)
        cpu_s = []
        for _ in range(10):
            started_s = time.process_time()
            sums = code_events(training_profile, x, energies, shares).sum_rows(slice(None))
            cpu_s.append(time.process_time() - started_s)
        section = pack_drift_sums(sums)
        size = sum(len(raw or b"") for raw in (section.ranks, section.squares, section.occupancy, section.pairs))
        rows.append([d, k, 1e6 * min(cpu_s) / len(x), size])
    table.show(
        f"cost of drift: CPU, best of 10 batches of 5,000 events; a score row in SQLite takes {_row_us():.1f} us",
        ("features", "components", "us an event", "bytes a window"),
        rows,
    )


def _row_us() -> float:
    """Return the best time to store a score, with the statement and transaction of the ledger."""
    n = 5_000
    with tempfile.TemporaryDirectory() as folder, Database(f"sqlite:///{folder}/outrider.db") as db:
        upgrade(db)
        cpu_s = []
        for batch in range(5):
            columns = ["source_id", "source_offset", "event_time_us", "energy", "threshold_id", "stored_at_us"]
            values = [(1, batch * n + i, i, 1.0, 1, 0) for i in range(n)]
            insert = f"INSERT INTO scores ({', '.join(columns)}) VALUES (?, ?, ?, ?, ?, ?)"
            started_s = time.process_time()
            with db.write() as connection:
                connection.exec_driver_sql(insert, values)
            cpu_s.append(time.process_time() - started_s)
    return 1e6 * min(cpu_s) / n


def show(*, quick: bool, seed: int) -> None:
    """Print the tables of drift."""
    print("DRIFT: false alarms / budget of one verdict over all statistics; 1 meets the budget, above 2 fails")
    print(f"seed {seed}")
    _false_alarms(n_draws=1500 if quick else 20_000, seed=seed)
    _by_base(n_draws=300 if quick else 2000, seed=seed)
    _few_events(bases=3 if quick else 40, seed=seed)
    _season(n_draws=2 if quick else 20, seed=seed)
    _power(n_draws=10 if quick else 100, seed=seed)
    _cost(seed)
