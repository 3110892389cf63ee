"""Detectors: the fit of a Gaussian mixture, from rows to parameters and a report.

Starts are tried, and components and shrinkage chosen, on a sample of the rows; the passes over all
rows begin where the sample's EM has ended. Memory is a chunk, the sample and the parameters, whatever the
number of rows.
"""

import time
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.detectors.fit import selection, trimming
from monitor.detectors.fit.em import Mixture
from monitor.detectors.fit.iterations import (
    FitContext,
    Progress,
    expectation_maximisation,
    refine_in_float64,
)
from monitor.detectors.fit.process_group import ProcessGroup
from monitor.detectors.fit.rows import StandardisedRows
from monitor.detectors.fit.sample import SAMPLE_ROWS, TrainingSample, draw_sample
from monitor.detectors.fit.settings import FitSettings
from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.inputs.scaling import Scaling, fit_column_scaling
from monitor.detectors.mixture_values import CovarianceType, MixtureValues

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What happened in a fit: what to look at before trusting it.

    Attributes:
        log_likelihood: The mean log-likelihood of the standardised rows at every pass over all of them.
        condition_numbers: Of each component's covariance, columns standardised.
        shrinkage: The share of made-up rows in each component's covariance.
        prior_rows: For how many rows the covariance of all events counted.
        alike_rows: For how many rows the average of the components' covariances counted.
        reg_covar: The ridge that was asked for.
        components_asked: None for "auto".
        components_dropped: Those that lost all their rows.
        criterion: Held-out mean log-likelihood by number of components, where that was to be found.
        rows: All rows.
        rows_trimmed: Left out as strange in the last pass.
        sample_iterations: Passes over the sample that the passes over all rows started from.
        seconds: Wall time.
    """

    log_likelihood: tuple[float, ...]
    condition_numbers: tuple[float, ...]
    shrinkage: tuple[float, ...]
    prior_rows: float
    alike_rows: float = 0.0
    reg_covar: float
    components_asked: int | None
    components_dropped: int
    criterion: dict[int, float] = field(default_factory=dict)
    rows: int
    rows_trimmed: int
    sample_iterations: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A mixture of standardised columns, how they were standardised, and the report."""

    mixture: Mixture
    scaling: Scaling
    converged: bool
    n_iter: int
    report: FitReport

    def to_values(self, kind: CovarianceType) -> MixtureValues:
        """Return the mixture in the columns' own units, its covariances as factors of the form that it has."""
        lower: F64 = torch.linalg.cholesky(self.mixture.covariances).numpy() * self.scaling.scale[:, None]
        if kind == "tied":
            lower = lower[:1]
        elif kind in ("diag", "spherical"):
            lower = np.diagonal(lower, axis1=1, axis2=2).copy()
        means: F64 = self.mixture.means.numpy() * self.scaling.scale + self.scaling.centre
        return MixtureValues(weights=self.mixture.weights.numpy(), means=means, cholesky=lower)


def fit_mixture(
    values: FloatArray, weights: F64 | None, plan: FitSettings, processes: ProcessGroup, progress: Progress | None
) -> FitResult:
    """Return the mixture fitted to the rows of all processes.

    Args:
        values: This process's events, checked.
        weights: One weight an event, or None.
        plan: The settings.
        processes: Those that share the fit.
        progress: Called after every pass over all rows with its number and mean log-likelihood.
    """
    began = time.perf_counter()
    rng = np.random.default_rng(plan.seed)
    weights = _normalise_weights(weights, processes)
    scaling = fit_column_scaling(values, weights, processes.sum_array, processes.max_array)
    if plan.covariance_type == "spherical":
        scaling = scaling.with_common_scale()
    sample, total = draw_sample(values, weights, scaling, processes, rng)
    core = None
    if plan.contamination > 0:
        sample, core = trimming.select_core(sample, plan, rng)
    clean = sample.rows if core is None else sample.rows.subset(core)
    rows = sample.rows if total <= SAMPLE_ROWS else _make_rows(values, weights, sample, plan)
    alone = ProcessGroup(rank=0, size=1)
    task = FitContext(
        settings=replace(plan, contamination=0.0), shrinkage=sample.make_shrinkage(plan, core), processes=alone
    )
    choice = selection.select_model(clean, task, rng, final=rows is clean)
    final, prior, alike = choice.em_result, choice.shrinkage.prior_rows, choice.shrinkage.pooled_rows
    task = FitContext(settings=plan, shrinkage=choice.shrinkage, processes=processes if total > SAMPLE_ROWS else alone)
    if rows is not clean:
        final = expectation_maximisation(rows, choice.em_result.mixture, task, progress)
    elif progress is not None:
        progress(len(final.log_likelihoods), final.log_likelihood)
    if values.dtype == np.float64:
        final = refine_in_float64(rows, final, task)
    k = len(final.mixture.weights)
    report = FitReport(
        log_likelihood=final.log_likelihoods,
        condition_numbers=_condition_numbers(final.mixture),
        shrinkage=tuple(((prior + alike) / (final.mass + prior + alike)).tolist()),
        prior_rows=prior,
        alike_rows=alike,
        reg_covar=plan.reg_covar,
        components_asked=plan.n_components,
        components_dropped=(plan.n_components or k) - k,
        criterion=choice.held_out_log_likelihoods,
        rows=total,
        rows_trimmed=final.n_trimmed,
        sample_iterations=len(choice.em_result.log_likelihoods),
        seconds=time.perf_counter() - began,
    )
    return FitResult(
        mixture=final.mixture,
        scaling=sample.scaling,
        converged=final.converged,
        n_iter=len(final.log_likelihoods),
        report=report,
    )


def _make_rows(values: FloatArray, weights: F64 | None, sample: TrainingSample, plan: FitSettings) -> StandardisedRows:
    """Return the rows of this process; each once where many are equal, which would not do to count the strangest."""
    rows = StandardisedRows.from_array(values, weights, sample.scaling)
    return rows.deduplicated() if plan.contamination == 0 and sample.has_duplicates else rows


def read_report(stored: dict[str, Any]) -> FitReport:
    """Return the report that an artefact's training summary holds."""
    try:
        return msgspec.convert(stored, FitReport, strict=False)
    except msgspec.ValidationError as reason:
        raise ModelError(f"the model's training report cannot be read: {reason}; fit it again") from reason


def _normalise_weights(weights: F64 | None, processes: ProcessGroup) -> F64 | None:
    """Return weights that count as rows do: whole numbers say how often a row came, others only what share it has.

    Those of the second kind are scaled such that the ones that are not zero have mean one.
    """
    if weights is None:
        return None
    fractions = np.count_nonzero(weights != np.floor(weights))
    total, rows, unequal = processes.sum_array(
        np.array([weights.sum(), np.count_nonzero(weights), fractions], dtype=float)
    )
    if unequal == 0:
        return weights
    scaled: F64 = weights * (rows / total)
    return scaled


def _condition_numbers(mixture: Mixture) -> tuple[float, ...]:
    values = torch.linalg.eigvalsh(mixture.covariances)
    return tuple((values[:, -1] / values[:, 0]).tolist())
