"""The gate before a promotion: does a model in the shadow hold what the active one holds? Pure.

Two things are compared over windows that both models scored, the clean ones, on which neither was trained:

* **Likelihood.** The mean energy of a clean event, energies beyond a model's own 99th percentile counted as that
  percentile (a handful of strange events would decide otherwise). The difference of the means, window by window, must
  not lie above zero by more than two standard errors and `LIKELIHOOD_SLACK` nats; the standard error knows the
  windows' autocorrelation. Only for kinds whose energy is a log-density of the features themselves: the networks'
  energies are of their latent space, and nats of different spaces say nothing about each other.
* **Alert volume.** At its own limit the model flags between a third of the nominal share and three times as many
  clean events, and of the windows in which the active model found nothing no more would fire than twice the promise
  allows, and one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.time_format import WEEK_US
from monitor.incidents.spike import false_alarm_probability, judge_count
from monitor.statistics.counts import fit_count_model
from monitor.statistics.part import BIN_WIDTH, Part, Scale
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.percentile import exceedance

Float64 = NDArray[np.float64]

MIN_CLEAN_WINDOWS = 30
MIN_EXPECTED_OUTLIERS = 50
"""Expected events above the limit: below it the share flagged is not known to a factor of three."""

LIKELIHOOD_SLACK = 0.02
ENERGY_CAP_QUANTILE = 0.99
MAX_FLAGGED_RATIO = 3.0

DENSITY_KINDS = frozenset({"gaussian_mixture", "class_conditional"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPair:
    """A judged window as the active model saw it and as the one in the shadow did."""

    active: Part
    shadow: Part
    fired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedModel:
    """A model in a comparison: its kind, the scale of its energies, and the dispersion of its counts."""

    kind: str
    scale: Scale
    dispersion: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRule:
    """The settings of the stream that the gate depends on."""

    percentile: float
    per_week: float
    size_us: int
    min_outliers: int
    min_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """`holds` is None while there is too little to tell; `reason` says it in a sentence, `numbers` have the rest."""

    holds: bool | None
    reason: str
    numbers: Mapping[str, Any]


def evaluate_gate(
    pairs: Sequence[WindowPair],
    active: ComparedModel,
    shadow: ComparedModel,
    reference_counts: tuple[int, int],
    rule: GateRule,
) -> GateVerdict:
    """Return whether the model in the shadow may take over.

    Args:
        pairs: The windows that both scored, in order; a part's outliers are those above its own model's limit.
        active: The active model.
        shadow: The one in the shadow.
        reference_counts: How many of its reference energies are above its limit, and how many there are.
        rule: The settings.
    """
    clean = [pair for pair in pairs if not pair.fired and pair.active.events]
    events = np.array([pair.shadow.events for pair in clean], np.int64)
    outliers = np.array([pair.shadow.outliers for pair in clean], np.int64)
    a = exceedance(rule.percentile)
    numbers: dict[str, Any] = {"windows": len(pairs), "clean_windows": len(clean), "events": int(events.sum())}
    waiting = _missing_evidence(len(clean), int(events.sum()), a)
    if waiting is not None:
        return GateVerdict(holds=None, reason=waiting, numbers=numbers)
    refusals = []
    share = float(outliers.sum() / events.sum())
    numbers |= {"flagged_share": share, "nominal_share": a}
    if not a / MAX_FLAGGED_RATIO <= share <= a * MAX_FLAGGED_RATIO:
        refusals.append(f"it flags {share:.3%} of the clean events, {a:.3%} is meant")
    fired, allowed = _count_firings(clean, events, outliers, reference_counts, active.dispersion, rule)
    numbers |= {"would_fire": fired, "may_fire": allowed}
    if fired > allowed:
        refusals.append(f"{fired} windows would fire in which the active model found nothing, {allowed} may")
    if {active.kind, shadow.kind} <= DENSITY_KINDS:
        worse, error = _mean_energy_difference(clean, active.scale, shadow.scale)
        numbers |= {"energy_difference": worse, "standard_error": error}
        if worse > LIKELIHOOD_SLACK + 2 * error:
            refusals.append(f"a clean event costs {worse:.3f} nats more than under the active model (+- {error:.3f})")
    if refusals:
        return GateVerdict(holds=False, reason="; ".join(refusals), numbers=numbers)
    return GateVerdict(holds=True, reason="likelihood and alert volume hold", numbers=numbers)


def _missing_evidence(windows: int, events: int, a: float) -> str | None:
    if windows < MIN_CLEAN_WINDOWS:
        return f"it has scored {windows} clean windows of the {MIN_CLEAN_WINDOWS} that a verdict needs"
    if events * a < MIN_EXPECTED_OUTLIERS:
        return f"it has scored {events:,} clean events of the {round(MIN_EXPECTED_OUTLIERS / a):,} that a verdict needs"
    return None


def _count_firings(
    clean: Sequence[WindowPair],
    events: NDArray[np.int64],
    outliers: NDArray[np.int64],
    reference_counts: tuple[int, int],
    dispersion: float,
    rule: GateRule,
) -> tuple[int, int]:
    """Return how many clean windows would fire, judged as the daemon judges, and how many may.

    How far the counts spread is the stream's own, as the active model has learned it: learned from these windows, the
    very ones that would fire would hide themselves.
    """
    law = fit_count_model(*reference_counts, outliers, events)
    law = replace(law, dispersion=min(law.dispersion, max(dispersion, 1.0)))
    alpha = false_alarm_probability(rule.per_week, rule.size_us)
    verdicts = (
        judge_count(
            law,
            pair.shadow.events,
            pair.shadow.outliers,
            alpha=alpha,
            min_outliers=rule.min_outliers,
            min_ratio=rule.min_ratio,
        )
        for pair in clean
    )
    promised = rule.per_week * len(clean) * rule.size_us / WEEK_US
    return sum(verdict.fires for verdict in verdicts), 1 + int(2 * promised)


def _mean_energy_difference(clean: Sequence[WindowPair], active: Scale, shadow: Scale) -> tuple[float, float]:
    """Return the mean of the energies' difference, shadow less active, in nats, and its standard error."""
    before = _capped_means([pair.active for pair in clean], active)
    after = _capped_means([pair.shadow for pair in clean], shadow)
    weight = np.array([pair.active.events for pair in clean], np.float64)
    weight /= weight.sum()
    difference = after - before
    mean = float((weight * difference).sum())
    centred = difference - mean
    variance = float((weight * centred**2).sum())
    if variance == 0:
        return mean, 0.0
    rho = float(np.clip((centred[1:] * centred[:-1]).mean() / variance, 0.0, 0.95))
    effective = (1 - rho) / (1 + rho) / float((weight**2).sum())
    return mean, float(np.sqrt(variance / max(effective, 1.0)))


def _capped_means(parts: Sequence[Part], scale: Scale) -> Float64:
    """Return each window's mean energy, from the middles of the bins; beyond the 99th percentile counts as that."""
    cap = EnergySketch.from_parts(parts, scale).quantile(ENERGY_CAP_QUANTILE)
    means = np.empty(len(parts))
    for i, part in enumerate(parts):
        middles = scale.median + scale.iqr * np.sinh(BIN_WIDTH * (part.bins.astype(np.float64) + 0.5))
        means[i] = (np.minimum(middles, cap) * part.counts).sum() / part.counts.sum()
    return means
