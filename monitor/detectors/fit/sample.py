"""Detectors: the rows that a fit starts on, and how they are standardised."""

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
from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.inputs.scaling import Scaling

F64 = NDArray[np.float64]

SAMPLE_ROWS = 20_000
_MAX_DISTINCT_SHARE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSample:
    """Events in their own units with their weights, each as so many rows, and the same standardised."""

    events: F64
    weights: F64
    scaling: Scaling
    rows: StandardisedRows

    @staticmethod
    def from_events(events: F64, weights: F64, scaling: Scaling) -> "TrainingSample":
        """Return the sample standardised as the scaling says."""
        rows = StandardisedRows.from_standardised(scaling.standardise(events), weights)
        return TrainingSample(events=events, weights=weights, scaling=scaling, rows=rows)

    @property
    def has_duplicates(self) -> bool:
        """Whether some rows equal others: of all rows, more do."""
        return group_duplicates(self.events, _MAX_DISTINCT_SHARE) is not None

    def rescaled(self, scaling: Scaling) -> "TrainingSample":
        """Return the same events standardised otherwise."""
        return TrainingSample.from_events(self.events, self.weights, scaling)

    def make_shrinkage(self, plan: FitSettings, core: NDArray[np.bool_] | None = None) -> em.Shrinkage:
        """Return the made-up rows that the plan wants, which vary as the core does, and the columns' ridge."""
        scale, reach = torch.from_numpy(self.scaling.scale), torch.from_numpy(self.scaling.max_abs_deviation)
        return em.Shrinkage(
            prior_rows=plan.shrinkage or 0.0,
            pooled_rows=0.0,
            target=_total_covariance(self.rows if core is None else self.rows.subset(core)),
            ridge=em.relative_ridge(plan.reg_covar, scale, reach),
        )


def draw_sample(
    values: FloatArray, weights: F64 | None, scaling: Scaling, processes: ProcessGroup, rng: np.random.Generator
) -> tuple[TrainingSample, int]:
    """Return rows drawn from all processes, and the number of all rows."""
    before, total = processes.row_offset(len(values))
    chosen = np.arange(total)
    if total > SAMPLE_ROWS:
        chosen = np.sort(rng.choice(total, SAMPLE_ROWS, replace=False))
    mine = (chosen >= before) & (chosen < before + len(values))
    gathered = np.zeros((len(chosen), values.shape[1] + 1))
    gathered[mine, :-1] = values[chosen[mine] - before]
    gathered[mine, -1] = 1.0 if weights is None else weights[chosen[mine] - before]
    gathered = processes.sum_array(gathered)
    gathered = gathered[gathered[:, -1] > 0]
    w = np.ascontiguousarray(gathered[:, -1])
    if total > SAMPLE_ROWS:
        w *= len(w) / w.sum()
    return TrainingSample.from_events(np.ascontiguousarray(gathered[:, :-1]), w, scaling), total


def _total_covariance(rows: StandardisedRows) -> Tensor:
    """Return the covariance of all standardised rows; a constant column counts with its scale."""
    assert rows.weights is not None
    z = torch.from_numpy(np.asarray(rows.values, dtype=np.float64))
    w = rows.weights / rows.weights.sum()
    away = z - w @ z
    covariance = (away * w.unsqueeze(1)).T @ away
    constant = covariance.diagonal() <= 0
    return covariance + torch.diag_embed(constant.double())
