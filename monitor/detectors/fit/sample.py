"""Sample of the training rows, for initialisation and model selection."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.detectors.fit import em
from monitor.detectors.fit.duplicates import group_duplicates
from monitor.detectors.fit.process_group import ProcessGroup
from monitor.detectors.fit.rows import StandardisedRows
from monitor.detectors.fit.settings import FitSettings
from monitor.detectors.fit.tight_groups import group_variances
from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.inputs.scaling import Scaling

F64 = NDArray[np.float64]

SAMPLE_ROWS = 20_000
_MAX_DISTINCT_SHARE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSample:
    """Sampled events with weights that count rows, in the units of the columns and standardised."""

    events: F64
    weights: F64
    scaling: Scaling
    rows: StandardisedRows

    @staticmethod
    def from_events(events: F64, weights: F64, scaling: Scaling) -> "TrainingSample":
        """Return a sample of the events, standardised by `scaling`."""
        rows = StandardisedRows.from_standardised(scaling.standardise(events), weights)
        return TrainingSample(events=events, weights=weights, scaling=scaling, rows=rows)

    @property
    def has_duplicates(self) -> bool:
        """Whether more than 5% of the sampled rows are duplicates; the fraction is larger among all rows."""
        return group_duplicates(self.events, _MAX_DISTINCT_SHARE) is not None

    def rescaled(self, scaling: Scaling) -> "TrainingSample":
        """Return the same events, standardised by another scaling."""
        return TrainingSample.from_events(self.events, self.weights, scaling)

    def make_shrinkage(self, settings: FitSettings, core: NDArray[np.bool_] | None = None) -> em.Shrinkage:
        """Return the shrinkage of the settings, before model selection.

        Args:
            settings: The settings of the fit.
            core: The mask of the rows that define the covariance of the pseudo-observations; None for all rows.
        """
        scale, reach = torch.from_numpy(self.scaling.scale), torch.from_numpy(self.scaling.max_abs_deviation)
        return em.Shrinkage(
            prior_rows=settings.shrinkage or 0.0,
            pooled_rows=0.0,
            target=_total_covariance(self.rows if core is None else self.rows.subset(core)),
            ridge=em.relative_ridge(
                settings.reg_covar, scale, reach, torch.from_numpy(group_variances(self.rows.values))
            ),
        )


def draw_sample(
    values: FloatArray, weights: F64 | None, scaling: Scaling, processes: ProcessGroup, rng: np.random.Generator
) -> tuple[TrainingSample, int]:
    """Draw at most `SAMPLE_ROWS` rows from all processes; return them and the number of all rows."""
    offset, total = processes.row_offset(len(values))
    chosen = np.arange(total)
    if total > SAMPLE_ROWS:
        chosen = np.sort(rng.choice(total, SAMPLE_ROWS, replace=False))
    local = (chosen >= offset) & (chosen < offset + len(values))
    gathered = np.zeros((len(chosen), values.shape[1] + 1))
    gathered[local, :-1] = values[chosen[local] - offset]
    gathered[local, -1] = 1.0 if weights is None else weights[chosen[local] - offset]
    gathered = processes.sum_array(gathered)
    gathered = gathered[gathered[:, -1] > 0]
    sample_weights = np.ascontiguousarray(gathered[:, -1])
    if total > SAMPLE_ROWS:
        sample_weights *= len(sample_weights) / sample_weights.sum()
    return TrainingSample.from_events(np.ascontiguousarray(gathered[:, :-1]), sample_weights, scaling), total


def _total_covariance(rows: StandardisedRows) -> Tensor:
    """Return the covariance of the standardised rows, (D, D); a constant column has variance one."""
    assert rows.weights is not None
    z = torch.from_numpy(np.asarray(rows.values, dtype=np.float64))
    sample_weights = rows.weights / rows.weights.sum()
    deviation = z - sample_weights @ z
    covariance = (deviation * sample_weights.unsqueeze(1)).T @ deviation
    constant = covariance.diagonal() <= 0
    return covariance + torch.diag_embed(constant.double())
