"""Detectors: the rows that a fit starts on, and how they are standardised."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.detectors import em
from monitor.detectors.inputs import FloatArray
from monitor.detectors.passes import Plan
from monitor.detectors.processes import Processes
from monitor.detectors.repeats import distinct
from monitor.detectors.rows import Rows
from monitor.detectors.scaling import Scaling

F64 = NDArray[np.float64]

SAMPLE_ROWS = 20_000
_MOST_DISTINCT = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Events in their own units with their weights, each as so many rows, and the same standardised."""

    events: F64
    weights: F64
    scaling: Scaling
    rows: Rows

    @staticmethod
    def of(events: F64, weights: F64, scaling: Scaling) -> "Sample":
        """Return the sample standardised as the scaling says."""
        rows = Rows.standardised(scaling.standardise(events), weights)
        return Sample(events=events, weights=weights, scaling=scaling, rows=rows)

    @property
    def repeats(self) -> bool:
        """Whether some rows equal others: of all rows, more do."""
        return distinct(self.events, _MOST_DISTINCT) is not None

    def rescaled(self, scaling: Scaling) -> "Sample":
        """Return the same events standardised otherwise."""
        return Sample.of(self.events, self.weights, scaling)

    def shrinkage(self, plan: Plan, core: NDArray[np.bool_] | None = None) -> em.Shrinkage:
        """Return the made-up rows that the plan wants, which vary as the core does, and the columns' ridge."""
        scale, reach = torch.from_numpy(self.scaling.scale), torch.from_numpy(self.scaling.reach)
        return em.Shrinkage(
            rows=plan.shrinkage or 0.0,
            alike=0.0,
            target=_overall(self.rows if core is None else self.rows.take(core)),
            ridge=em.relative_ridge(plan.reg_covar, scale, reach),
        )


def draw(
    values: FloatArray, weights: F64 | None, scaling: Scaling, processes: Processes, rng: np.random.Generator
) -> tuple[Sample, int]:
    """Return rows drawn from all processes, and the number of all rows."""
    before, total = processes.first_row(len(values))
    chosen = np.arange(total)
    if total > SAMPLE_ROWS:
        chosen = np.sort(rng.choice(total, SAMPLE_ROWS, replace=False))
    mine = (chosen >= before) & (chosen < before + len(values))
    gathered = np.zeros((len(chosen), values.shape[1] + 1))
    gathered[mine, :-1] = values[chosen[mine] - before]
    gathered[mine, -1] = 1.0 if weights is None else weights[chosen[mine] - before]
    gathered = processes.add(gathered)
    gathered = gathered[gathered[:, -1] > 0]
    w = np.ascontiguousarray(gathered[:, -1])
    if total > SAMPLE_ROWS:
        w *= len(w) / w.sum()
    return Sample.of(np.ascontiguousarray(gathered[:, :-1]), w, scaling), total


def _overall(rows: Rows) -> Tensor:
    """Return the covariance of all standardised rows; a constant column counts with its scale."""
    assert rows.weights is not None
    z = torch.from_numpy(np.asarray(rows.values, dtype=np.float64))
    w = rows.weights / rows.weights.sum()
    away = z - w @ z
    covariance = (away * w.unsqueeze(1)).T @ away
    constant = covariance.diagonal() <= 0
    return covariance + torch.diag_embed(constant.double())
