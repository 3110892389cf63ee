"""Gate before a promotion: compare a shadow model with the active model. Pure functions.

Two criteria are evaluated on clean windows that both models scored and neither was trained on:

* **Likelihood.** The mean energy of clean events, with energies above a model's own 99th percentile replaced by that
  percentile (otherwise a few anomalous events would decide). The mean difference over windows must not exceed zero by
  more than `LIKELIHOOD_SLACK` nats plus two standard errors; the standard error accounts for the autocorrelation of
  windows. The criterion applies only to kinds with an energy that is a log-density of the features: the energies of
  networks refer to their latent space, and densities of different spaces are not comparable. For the same reason it
  applies only to models that derive features of the same fields.
* **Alert volume.** At its own threshold the model flags between a third and three times the nominal fraction of clean
  events. Among the windows in which the active model found nothing, at most 1 plus twice the false-alarm budget would
  fire.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.budget import false_alarm_probability
from config.stream_rules import StreamRules
from config.time_format import WEEK_US
from monitor.incidents.spike import judge_count
from monitor.statistics.counts import fit_count_model
from monitor.statistics.part import BIN_WIDTH, Part, Scale
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.percentile import exceedance

Float64 = NDArray[np.float64]

MIN_CLEAN_WINDOWS = 30
MIN_EXPECTED_OUTLIERS = 50
"""The minimum expected outliers: with fewer, the flagged fraction is not known to a factor of three."""

LIKELIHOOD_SLACK = 0.02
ENERGY_CAP_QUANTILE = 0.99
MAX_FLAGGED_RATIO = 3.0

DENSITY_KINDS = frozenset({"gaussian_mixture", "class_conditional"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPair:
    """A judged window as scored by both models. `fired` is True if a test of the active model fired."""

    active: Part
    shadow: Part
    fired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedModel:
    """One model of the comparison: kind, scale of its energies, dispersion of its outlier counts, derived fields."""

    kind: str
    scale: Scale
    dispersion: float = 1.0
    derived: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """Result of the gate.

    Attributes:
        holds: Whether the model may be promoted; None while the evidence is insufficient.
        reason: The reason as a sentence.
        numbers: The figures behind it.
    """

    holds: bool | None
    reason: str
    numbers: Mapping[str, Any]


def evaluate_gate(
    pairs: Sequence[WindowPair],
    active: ComparedModel,
    shadow: ComparedModel,
    reference_counts: tuple[int, int],
    rules: StreamRules,
) -> GateVerdict:
    """Decide whether the shadow model may be promoted.

    Args:
        pairs: The windows that both models scored, in order; outliers are counted above each model's own threshold.
        active: The active model.
        shadow: The shadow model.
        reference_counts: The number of the shadow's reference energies above its threshold, and their total number.
        rules: The rules of the stream.
    """
    clean = [pair for pair in pairs if not pair.fired and pair.active.events]
    events = np.array([pair.shadow.events for pair in clean], np.int64)
    outliers = np.array([pair.shadow.outliers for pair in clean], np.int64)
    nominal = exceedance(rules.percentile)
    numbers: dict[str, Any] = {"windows": len(pairs), "clean_windows": len(clean), "events": int(events.sum())}
    missing = _missing_evidence(len(clean), int(events.sum()), nominal)
    if missing is not None:
        return GateVerdict(holds=None, reason=missing, numbers=numbers)
    objections = []
    share = float(outliers.sum() / events.sum())
    numbers |= {"flagged_share": share, "nominal_share": nominal}
    if not nominal / MAX_FLAGGED_RATIO <= share <= nominal * MAX_FLAGGED_RATIO:
        objections.append(f"it flags {share:.3%} of the clean events, {nominal:.3%} is meant")
    fired, allowed = _count_firings(clean, events, outliers, reference_counts, active.dispersion, rules)
    numbers |= {"would_fire": fired, "may_fire": allowed}
    if fired > allowed:
        objections.append(f"{fired} windows would fire in which the active model found nothing, {allowed} may")
    if {active.kind, shadow.kind} <= DENSITY_KINDS and active.derived == shadow.derived:
        difference, error = _mean_energy_difference(clean, active.scale, shadow.scale)
        numbers |= {"energy_difference": difference, "standard_error": error}
        if difference > LIKELIHOOD_SLACK + 2 * error:
            objections.append(
                f"a clean event costs {difference:.3f} nats more than under the active model (+- {error:.3f})"
            )
    if objections:
        return GateVerdict(holds=False, reason="; ".join(objections), numbers=numbers)
    return GateVerdict(holds=True, reason="likelihood and alert volume hold", numbers=numbers)


MIN_REFIT_WINDOWS = 5
"""The minimum number of clean windows that a refit is compared on: with fewer, one of them would decide."""


def evaluate_refit(
    pairs: Sequence[WindowPair],
    active: ComparedModel,
    shadow: ComparedModel,
    reference_counts: tuple[int, int],
    rules: StreamRules,
) -> GateVerdict:
    """Decide whether the model of a refit becomes active: it does unless the windows speak against it.

    A refit has the event time between two refits, in which a slow metric has too few events for a verdict of
    `evaluate_gate`. Its criteria are the same, except that the flagged fraction must be significantly above three times
    the nominal one (by two standard errors of an over-dispersed count), and that no fraction is too small: the
    threshold is estimated anew from the same windows. Without a verdict the model would stay behind its stream.

    Args:
        pairs: The windows that both models scored, in order.
        active: The active model.
        shadow: The model of the refit.
        reference_counts: The number of its reference energies above its threshold, and their total number.
        rules: The rules of the stream.
    """
    clean = [pair for pair in pairs if not pair.fired and pair.active.events]
    events = np.array([pair.shadow.events for pair in clean], np.int64)
    outliers = np.array([pair.shadow.outliers for pair in clean], np.int64)
    numbers: dict[str, Any] = {"windows": len(pairs), "clean_windows": len(clean), "events": int(events.sum())}
    if len(clean) < MIN_REFIT_WINDOWS:
        reason = f"it has scored {len(clean)} clean windows of the {MIN_REFIT_WINDOWS} that a comparison needs"
        return GateVerdict(holds=False, reason=reason, numbers=numbers)
    nominal = exceedance(rules.percentile)
    numbers |= {"flagged_share": float(outliers.sum() / events.sum()), "nominal_share": nominal}
    objections = []
    most = MAX_FLAGGED_RATIO * nominal * float(events.sum())
    if float(outliers.sum()) > most + 2 * np.sqrt(max(active.dispersion, 1.0) * most):
        objections.append(f"it flags {numbers['flagged_share']:.3%} of the clean events, {nominal:.3%} is meant")
    fired, allowed = _count_firings(clean, events, outliers, reference_counts, active.dispersion, rules)
    numbers |= {"would_fire": fired, "may_fire": allowed}
    if fired > allowed:
        objections.append(f"{fired} windows would fire in which the active model found nothing, {allowed} may")
    if {active.kind, shadow.kind} <= DENSITY_KINDS:
        difference, error = _mean_energy_difference(clean, active.scale, shadow.scale)
        numbers |= {"energy_difference": difference, "standard_error": error}
        if difference > LIKELIHOOD_SLACK + 2 * error:
            objections.append(
                f"a clean event costs {difference:.3f} nats more than under the active model (+- {error:.3f})"
            )
    reason = "; ".join(objections) or "the windows between two refits do not speak against it"
    return GateVerdict(holds=not objections, reason=reason, numbers=numbers)


def _missing_evidence(windows: int, events: int, nominal: float) -> str | None:
    if windows < MIN_CLEAN_WINDOWS:
        return f"it has scored {windows} clean windows of the {MIN_CLEAN_WINDOWS} that a verdict needs"
    if events * nominal < MIN_EXPECTED_OUTLIERS:
        needed = round(MIN_EXPECTED_OUTLIERS / nominal)
        return f"it has scored {events:,} clean events of the {needed:,} that a verdict needs"
    return None


def _count_firings(
    clean: Sequence[WindowPair],
    events: NDArray[np.int64],
    outliers: NDArray[np.int64],
    reference_counts: tuple[int, int],
    dispersion: float,
    rules: StreamRules,
) -> tuple[int, int]:
    """Return the number of clean windows that would fire if judged as in the daemon, and the number allowed.

    The dispersion is bounded by the one fitted under the active model: fitted on these windows alone, the windows
    that would fire would raise the dispersion and hide themselves.
    """
    count_model = fit_count_model(*reference_counts, outliers, events)
    count_model = replace(count_model, dispersion=min(count_model.dispersion, max(dispersion, 1.0)))
    alpha = false_alarm_probability(rules.per_week, rules.size_us)
    verdicts = (
        judge_count(
            count_model,
            pair.shadow.events,
            pair.shadow.outliers,
            alpha=alpha,
            min_outliers=rules.min_outliers,
            min_ratio=rules.min_ratio,
        )
        for pair in clean
    )
    budgeted = rules.per_week * len(clean) * rules.size_us / WEEK_US
    return sum(verdict.fires for verdict in verdicts), 1 + int(2 * budgeted)


def _mean_energy_difference(clean: Sequence[WindowPair], active: Scale, shadow: Scale) -> tuple[float, float]:
    """Return the mean difference of the energies, shadow minus active, in nats, and its standard error."""
    active_means = _capped_means([pair.active for pair in clean], active)
    shadow_means = _capped_means([pair.shadow for pair in clean], shadow)
    weight = np.array([pair.active.events for pair in clean], np.float64)
    weight /= weight.sum()
    difference = shadow_means - active_means
    mean = float((weight * difference).sum())
    centred = difference - mean
    variance = float((weight * centred**2).sum())
    if variance == 0:
        return mean, 0.0
    rho = float(np.clip((centred[1:] * centred[:-1]).mean() / variance, 0.0, 0.95))
    effective = (1 - rho) / (1 + rho) / float((weight**2).sum())
    return mean, float(np.sqrt(variance / max(effective, 1.0)))


def _capped_means(parts: Sequence[Part], scale: Scale) -> Float64:
    """Return the mean energy of each window, from bin centres, with energies capped at the 99th percentile."""
    cap = EnergySketch.from_parts(parts, scale).quantile(ENERGY_CAP_QUANTILE)
    means = np.empty(len(parts))
    for i, part in enumerate(parts):
        centres = scale.median + scale.iqr * np.sinh(BIN_WIDTH * (part.bins.astype(np.float64) + 0.5))
        means[i] = (np.minimum(centres, cap) * part.counts).sum() / part.counts.sum()
    return means
