"""Fit of a Gaussian mixture, from rows to parameters and a report.

A sample of the rows selects the initialisation, the number of components and the shrinkage. The passes over all rows
start from the EM result on the sample. Memory holds a chunk, the sample and the parameters, independent of the
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
    """Diagnostics of a fit.

    The field names are keys of the stored training summary.

    Attributes:
        log_likelihood: The mean log-likelihood of the standardised rows at every pass over all rows.
        condition_numbers: The condition number of each component's covariance, for standardised columns.
        shrinkage: The fraction of pseudo-observations in each component's covariance.
        prior_rows: The number of pseudo-observations with the covariance of all events.
        alike_rows: The number of pseudo-observations with the components' average covariance.
        reg_covar: The setting `reg_covar`.
        components_asked: The setting `n_components`; None for "auto".
        components_dropped: The number of components that lost all their rows.
        criterion: The mean held-out log-likelihood by number of components, if the number was selected.
        rows: The number of all rows.
        rows_trimmed: The number of rows that the last pass left out as outliers.
        sample_iterations: The number of passes over the sample.
        seconds: The elapsed time.
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
    """Mixture of standardised columns, with their scaling and the fit report."""

    mixture: Mixture
    scaling: Scaling
    converged: bool
    n_iter: int
    report: FitReport

    def to_values(self, kind: CovarianceType) -> MixtureValues:
        """Return the mixture in the units of the columns, with Cholesky factors of the form `kind`."""
        lower: F64 = torch.linalg.cholesky(self.mixture.covariances).numpy() * self.scaling.scale[:, None]
        if kind == "tied":
            lower = lower[:1]
        elif kind in ("diag", "spherical"):
            lower = np.diagonal(lower, axis1=1, axis2=2).copy()
        means: F64 = self.mixture.means.numpy() * self.scaling.scale + self.scaling.centre
        return MixtureValues(weights=self.mixture.weights.numpy(), means=means, cholesky=lower)


def fit_mixture(
    values: FloatArray, weights: F64 | None, settings: FitSettings, processes: ProcessGroup, progress: Progress | None
) -> FitResult:
    """Fit a mixture to the rows of all processes.

    Args:
        values: The checked events of this process, (n, D).
        weights: One weight per event, (n,), or None.
        settings: The settings of the fit.
        processes: The processes that share the fit.
        progress: Called after every pass over all rows with its number and the mean log-likelihood.
    """
    started_at = time.perf_counter()
    rng = np.random.default_rng(settings.seed)
    weights = _normalise_weights(weights, processes)
    scaling = fit_column_scaling(values, weights, processes.sum_array, processes.max_array)
    if settings.covariance_type == "spherical":
        scaling = scaling.with_common_scale()
    sample, total = draw_sample(values, weights, scaling, processes, rng)
    core = None
    if settings.contamination > 0:
        sample, core = trimming.select_core(sample, settings, rng)
    core_rows = sample.rows if core is None else sample.rows.subset(core)
    rows = sample.rows if total <= SAMPLE_ROWS else _make_rows(values, weights, sample, settings)
    single_process = ProcessGroup(rank=0, size=1)
    context = FitContext(
        settings=replace(settings, contamination=0.0),
        shrinkage=sample.make_shrinkage(settings, core),
        processes=single_process,
    )
    selected = selection.select_model(core_rows, context, rng, final=rows is core_rows)
    result = selected.em_result
    prior_rows, pooled_rows = selected.shrinkage.prior_rows, selected.shrinkage.pooled_rows
    context = FitContext(
        settings=settings, shrinkage=selected.shrinkage, processes=processes if total > SAMPLE_ROWS else single_process
    )
    if rows is not core_rows:
        result = expectation_maximisation(rows, selected.em_result.mixture, context, progress)
    elif progress is not None:
        progress(len(result.log_likelihoods), result.log_likelihood)
    if values.dtype == np.float64:
        result = refine_in_float64(rows, result, context)
    k = len(result.mixture.weights)
    report = FitReport(
        log_likelihood=result.log_likelihoods,
        condition_numbers=_condition_numbers(result.mixture),
        shrinkage=tuple(((prior_rows + pooled_rows) / (result.mass + prior_rows + pooled_rows)).tolist()),
        prior_rows=prior_rows,
        alike_rows=pooled_rows,
        reg_covar=settings.reg_covar,
        components_asked=settings.n_components,
        components_dropped=(settings.n_components or k) - k,
        criterion=selected.held_out_log_likelihoods,
        rows=total,
        rows_trimmed=result.n_trimmed,
        sample_iterations=len(selected.em_result.log_likelihoods),
        seconds=time.perf_counter() - started_at,
    )
    return FitResult(
        mixture=result.mixture,
        scaling=sample.scaling,
        converged=result.converged,
        n_iter=len(result.log_likelihoods),
        report=report,
    )


def _make_rows(
    values: FloatArray, weights: F64 | None, sample: TrainingSample, settings: FitSettings
) -> StandardisedRows:
    """Return the standardised rows of this process, without duplicates if there are many.

    With contamination, duplicates stay: the trimmed fraction counts rows.
    """
    rows = StandardisedRows.from_array(values, weights, sample.scaling)
    return rows.deduplicated() if settings.contamination == 0 and sample.has_duplicates else rows


def read_report(stored: dict[str, Any]) -> FitReport:
    """Return the fit report in an artefact's training summary.

    Raises:
        ModelError: A field is missing or invalid.
    """
    try:
        return msgspec.convert(stored, FitReport, strict=False)
    except msgspec.ValidationError as error:
        raise ModelError(f"the model's training report cannot be read: {error}; fit it again") from error


def _normalise_weights(weights: F64 | None, processes: ProcessGroup) -> F64 | None:
    """Return weights that count rows.

    Whole numbers are counts and stay unchanged. Other weights are relative, and are scaled so that the mean of the
    nonzero weights is one.
    """
    if weights is None:
        return None
    fractional = np.count_nonzero(weights != np.floor(weights))
    total, rows, n_fractional = processes.sum_array(
        np.array([weights.sum(), np.count_nonzero(weights), fractional], dtype=float)
    )
    if n_fractional == 0:
        return weights
    scaled: F64 = weights * (rows / total)
    return scaled


def _condition_numbers(mixture: Mixture) -> tuple[float, ...]:
    values = torch.linalg.eigvalsh(mixture.covariances)
    return tuple((values[:, -1] / values[:, 0]).tolist())
