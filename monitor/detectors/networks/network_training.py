"""Detectors: the loss of an autoencoding mixture, and a training that nothing but its data can stop."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from config.errors import ModelError
from monitor.detectors.gmm_functions import LOG_2PI, cholesky_with_ridge
from monitor.detectors.networks.density_nets import DensityNets, ForwardResult
from monitor.detectors.networks.mixture_loss import mixture_loss

OptimizerFactory = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]
ReconstructionLoss = Callable[[Tensor, Tensor], Tensor]

_LOG = logging.getLogger(__name__)
_EVALUATION_ROWS = 16384
_MAX_GRADIENT_NORM = 100.0
_DEAD_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """How the terms of the loss are weighted; `beta` is 0 without a variational latent."""

    recon: float
    energy: float
    cov_diag: float
    beta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How to train."""

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: OptimizerFactory | None
    seed: int
    verbose: bool | None


@dataclass(slots=True, kw_only=True)
class TrainingReport:
    """What happened in a training, one entry of `epochs` per epoch."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    skipped_steps: int = 0
    stopped: str | None = None


def mean_squared_error(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the mean squared difference."""
    return (x - reconstruction).square().mean()


def gaussian_nll(cov_elbo: Mapping[str, Any], rows: Tensor) -> ReconstructionLoss:
    """Return -mean log N(x | r, C) as a function of x and r.

    Args:
        cov_elbo: One of {"sim": common deviation}, {"cov_diag": deviations or None} and
            {"cov_full": covariance or None}; None takes those of `rows`. All in standardised units.
        rows: The training rows, flattened.

    Raises:
        ModelError: Another key, or values that are no deviations or covariance of these rows.
    """
    known = isinstance(cov_elbo, Mapping) and len(cov_elbo) == 1 and set(cov_elbo) <= {"sim", "cov_diag", "cov_full"}
    if not known:
        raise ModelError(f"cov_elbo must be a dict of one key: sim, cov_diag or cov_full; got {cov_elbo!r}")
    kind, value = next(iter(cov_elbo.items()))
    D = rows.shape[1]
    if kind == "cov_full":
        cov = _covariance(rows) if value is None else _finite_tensor(kind, value).to(rows.device)
        if cov.shape != (D, D):
            raise ModelError(f"cov_elbo: cov_full must be ({D}, {D}), not {tuple(cov.shape)}")
        if value is not None and not (torch.allclose(cov, cov.mT) and bool(torch.linalg.eigvalsh(cov).min() > -1e-6)):
            raise ModelError("cov_elbo: cov_full must be a covariance, symmetric and nowhere negative")
        lower = cholesky_with_ridge(cov[None], 1e-6)[0]
        half_log_det = float(lower.diagonal().log().sum())
        eye = torch.eye(D, dtype=lower.dtype, device=lower.device)
        whiten = torch.linalg.solve_triangular(lower, eye, upper=False).to(rows)

        def full(x: Tensor, reconstruction: Tensor) -> Tensor:
            apart = (x - reconstruction).flatten(1) @ whiten.T
            return cast("Tensor", 0.5 * (apart.square().sum(1).mean() + D * LOG_2PI) + half_log_det)

        return full
    if kind == "cov_diag" and value is None:
        deviation = rows.double().std(0, correction=0).clamp_min(1e-3).to(rows)
    else:
        given = _finite_tensor(kind, value)
        if given.numel() not in (1, D):
            raise ModelError(f"cov_elbo: {kind} must be one deviation, or {D} of them, not {given.numel()}")
        deviation = given.flatten().to(rows).expand(D)
    if not bool((deviation > 0).all()):
        raise ModelError(f"cov_elbo: the deviations of {kind} must be positive")
    log_det = float(deviation.double().log().sum())

    def diagonal(x: Tensor, reconstruction: Tensor) -> Tensor:
        apart = (x - reconstruction).flatten(1) / deviation
        return 0.5 * (apart.square().sum(1).mean() + D * LOG_2PI) + log_det

    return diagonal


def _finite_tensor(kind: str, value: object) -> Tensor:
    try:
        given = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as reason:
        raise ModelError(f"cov_elbo: {kind} must be numbers, not {value!r}") from reason
    if not bool(torch.isfinite(given).all()):
        raise ModelError(f"cov_elbo: {kind} must be finite")
    return given


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the KL divergence from the standard normal, averaged over samples and latent dimensions."""
    return -0.5 * (log_variance - mean.square() - log_variance.exp() + 1.0).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The loss of one detector: its reconstruction term and the weights of all terms."""

    recon: ReconstructionLoss
    weights: LossWeights

    def loss_terms(self, result: ForwardResult, x: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss, their weighted sum `loss`, and how many components are dead."""
        weights = self.weights
        energy, cov_diag, phi = mixture_loss(result.z, result.gamma)
        terms = {"recon": self.recon(x, result.reconstruction), "energy": energy, "cov_diag": cov_diag}
        terms["loss"] = weights.recon * terms["recon"] + weights.energy * energy + weights.cov_diag * cov_diag
        if result.mean is not None and result.log_variance is not None:
            terms["kl"] = kl_divergence(result.mean, result.log_variance)
            terms["loss"] = terms["loss"] + weights.beta * terms["kl"]
        terms["dead"] = (phi < _DEAD_WEIGHT / len(phi)).sum()
        return terms


def train_networks(nets: DensityNets, rows: Tensor, objective: Objective, plan: TrainingOptions) -> TrainingReport:
    """Train the networks in place and leave them as they were after the best epoch.

    The best epoch is the one of the smallest loss, with the same noise every time, over up to 16,384 evenly
    spread rows. A step whose loss or gradient is not finite is left out and counted; an epoch without any other kind of
    step ends the training.

    Raises:
        ModelError: The first epoch had no usable step.
    """
    run = _TrainingLoop(nets, objective, plan)
    judged = rows[:: max(1, -(-len(rows) // _EVALUATION_ROWS))]
    best: dict[str, Tensor] = {}
    lowest = float("inf")
    with _progress_bar(plan) as advance:
        for epoch in range(1, plan.epochs + 1):
            taken = run.run_epoch(rows)
            figures = run.evaluate(judged) if taken else None
            if figures is None:
                run.report.stopped = f"epoch {epoch} had no usable step"
                _LOG.warning("The training stops: %s.", run.report.stopped, extra={"action": "training_stopped"})
                break
            run.report.epochs.append({"epoch": float(epoch), **figures})
            if figures["loss"] < lowest:
                lowest, run.report.best_epoch = figures["loss"], epoch
                best = {name: value.detach().clone() for name, value in nets.state_dict().items()}
            advance(f"loss {figures['loss']:.4g}, best epoch {run.report.best_epoch}")
    if not best:
        raise ModelError(
            "the training had no usable step: every loss was NaN or infinite; lower the learning rate, use "
            "fewer components, or check the given networks"
        )
    nets.load_state_dict(best)
    nets.eval()
    return run.report


def draw_latent_noise(nets: DensityNets, rows: Tensor, seed: int) -> Tensor | None:
    """Return one draw of latent noise for each row, the same for the same seed; None without heads."""
    if not nets.latent_width:
        return None
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(rows), nets.latent_width, generator=generator).to(rows)


class _TrainingLoop:
    """One training under way."""

    def __init__(self, nets: DensityNets, objective: Objective, plan: TrainingOptions) -> None:
        self.nets = nets
        self.objective = objective
        self.options = plan
        self.report = TrainingReport()
        self.parameters = [p for p in nets.parameters() if p.requires_grad]
        make = plan.optimizer or (lambda given: torch.optim.Adam(given, lr=plan.learning_rate, fused=True))
        self.optimizer = make(self.parameters)
        if not isinstance(self.optimizer, torch.optim.Optimizer):
            raise ModelError(f"the optimizer function must return a torch optimizer, not {self.optimizer!r}")
        self.order = torch.Generator().manual_seed(plan.seed)
        self.noise = torch.Generator().manual_seed(plan.seed + 1)

    def run_epoch(self, rows: Tensor) -> int:
        """Go once over the rows in random order; return how many steps were taken."""
        self.nets.train()
        batches = _shuffled_batches(len(rows), self.options.batch_size, self.order)
        return sum(self._take_step(rows[batch.to(rows.device)]) for batch in batches)

    def evaluate(self, rows: Tensor) -> dict[str, float] | None:
        """Return the terms of the loss over `rows` with noise that never changes; None if one is not finite."""
        self.nets.eval()
        with torch.no_grad():
            try:
                terms = self.objective.loss_terms(
                    self.nets(rows, draw_latent_noise(self.nets, rows, self.options.seed)), rows
                )
            except ModelError:
                return None
        figures = {name: float(value) for name, value in terms.items()}
        return figures if all(abs(value) < float("inf") for value in figures.values()) else None

    def _take_step(self, x: Tensor) -> bool:
        self.optimizer.zero_grad(set_to_none=True)
        width = self.nets.latent_width
        moved = torch.randn(len(x), width, generator=self.noise).to(x) if width else None
        try:
            loss = self.objective.loss_terms(self.nets(x, moved), x)["loss"]
        except ModelError:  # NaN in the mixture's input: this batch has nothing to teach
            self.report.skipped_steps += 1
            return False
        torch.autograd.backward(loss)
        length = torch.nn.utils.clip_grad_norm_(self.parameters, _MAX_GRADIENT_NORM)
        if not bool(torch.isfinite(loss) & torch.isfinite(length)):
            self.report.skipped_steps += 1
            return False
        self.optimizer.step()
        return True


def _shuffled_batches(n: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """Return shuffled row numbers in batches; a last one of less than half the size joins its neighbour."""
    order = torch.randperm(n, generator=generator)
    starts = list(range(0, n, size))
    if len(starts) > 1 and n - starts[-1] < size / 2:
        starts.pop()
    return [order[start:end] for start, end in pairwise([*starts, n])]


@contextmanager
def _progress_bar(plan: TrainingOptions) -> Iterator[Callable[[str], None]]:
    """Show a bar on standard error, by default only on a terminal; yield what moves it on by one epoch."""
    shown = sys.stderr.isatty() if plan.verbose is None else plan.verbose
    if not shown:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=plan.epochs)
        yield lambda text: bar.update(task, advance=1, description=text)


def _covariance(rows: Tensor) -> Tensor:
    wide = rows.double()
    wide = wide - wide.mean(0)
    return wide.T @ wide / len(wide)
