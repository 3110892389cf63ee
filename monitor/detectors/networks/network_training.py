"""Loss and training loop of the autoencoding mixtures.

Steps with a non-finite loss or gradient are skipped, so that only unusable data end a training.
"""

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

log = logging.getLogger(__name__)
_EVALUATION_ROWS = 16384
_MAX_GRADIENT_NORM = 100.0
_DEAD_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Weights of the loss terms; `beta` weights the KL divergence and is 0 without a variational latent."""

    recon: float
    energy: float
    cov_diag: float
    beta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Options of one training; `optimizer` builds the optimizer from the parameters (default: Adam)."""

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: OptimizerFactory | None
    seed: int
    verbose: bool | None


@dataclass(slots=True, kw_only=True)
class TrainingReport:
    """Result of a training: the loss terms of each epoch, the best epoch, skipped steps, reason of an early stop."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    skipped_steps: int = 0
    stopped: str | None = None


def mean_squared_error(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the mean squared error of the reconstruction."""
    return (x - reconstruction).square().mean()


def gaussian_nll(cov_elbo: Mapping[str, Any], rows: Tensor) -> ReconstructionLoss:
    """Return the reconstruction loss -mean log N(x | r, C) as a function of x and r.

    Args:
        cov_elbo: One of {"sim": common deviation}, {"cov_diag": deviations or None} and
            {"cov_full": covariance or None}; None stands for those of `rows`. All in standardised units.
        rows: The training rows, flattened, (n, D).

    Raises:
        ModelError: Another key, or values that are not deviations or a covariance for D features.
    """
    is_valid = isinstance(cov_elbo, Mapping) and len(cov_elbo) == 1 and set(cov_elbo) <= {"sim", "cov_diag", "cov_full"}
    if not is_valid:
        raise ModelError(f"cov_elbo must be a dict of one key: sim, cov_diag or cov_full; got {cov_elbo!r}")
    kind, value = next(iter(cov_elbo.items()))
    D = rows.shape[1]
    if kind == "cov_full":
        cov = _covariance(rows) if value is None else _finite_tensor(kind, value).to(rows.device)
        if cov.shape != (D, D):
            raise ModelError(f"cov_elbo: cov_full must be ({D}, {D}), not {tuple(cov.shape)}")
        if value is not None and not (torch.allclose(cov, cov.mT) and bool(torch.linalg.eigvalsh(cov).min() > -1e-6)):
            raise ModelError("cov_elbo: cov_full must be a covariance matrix: symmetric and positive semi-definite")
        lower = cholesky_with_ridge(cov[None], 1e-6)[0]
        half_log_det = float(lower.diagonal().log().sum())
        eye = torch.eye(D, dtype=lower.dtype, device=lower.device)
        whiten = torch.linalg.solve_triangular(lower, eye, upper=False).to(rows)

        def full(x: Tensor, reconstruction: Tensor) -> Tensor:
            residual = (x - reconstruction).flatten(1) @ whiten.T
            return cast("Tensor", 0.5 * (residual.square().sum(1).mean() + D * LOG_2PI) + half_log_det)

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
        residual = (x - reconstruction).flatten(1) / deviation
        return 0.5 * (residual.square().sum(1).mean() + D * LOG_2PI) + log_det

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
    """Return KL(N(mean, variance) || N(0, 1)), averaged over samples and latent dimensions."""
    return -0.5 * (log_variance - mean.square() - log_variance.exp() + 1.0).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Loss of a detector: the reconstruction loss and the weights of all terms."""

    recon: ReconstructionLoss
    weights: LossWeights

    def loss_terms(self, result: ForwardResult, x: Tensor) -> dict[str, Tensor]:
        """Return the loss terms, their weighted sum `loss`, and the number of dead components.

        A component is dead when its weight is below a thousandth of the mean weight.
        """
        weights = self.weights
        energy, cov_diag, phi = mixture_loss(result.z, result.gamma)
        terms = {"recon": self.recon(x, result.reconstruction), "energy": energy, "cov_diag": cov_diag}
        terms["loss"] = weights.recon * terms["recon"] + weights.energy * energy + weights.cov_diag * cov_diag
        if result.mean is not None and result.log_variance is not None:
            terms["kl"] = kl_divergence(result.mean, result.log_variance)
            terms["loss"] = terms["loss"] + weights.beta * terms["kl"]
        terms["dead"] = (phi < _DEAD_WEIGHT / len(phi)).sum()
        return terms


def train_networks(nets: DensityNets, rows: Tensor, objective: Objective, options: TrainingOptions) -> TrainingReport:
    """Train the networks in place and restore the parameters of the best epoch.

    The best epoch has the smallest loss over up to 16,384 evenly spread rows, evaluated with the same noise
    after each epoch. A step with a non-finite loss or gradient is skipped and counted; an epoch with only
    skipped steps ends the training.

    Raises:
        ModelError: The first epoch had no usable step.
    """
    loop = _TrainingLoop(nets, objective, options)
    evaluation_rows = rows[:: max(1, -(-len(rows) // _EVALUATION_ROWS))]
    best: dict[str, Tensor] = {}
    lowest = float("inf")
    with _progress_bar(options) as advance:
        for epoch in range(1, options.epochs + 1):
            n_steps = loop.run_epoch(rows)
            values = loop.evaluate(evaluation_rows) if n_steps else None
            if values is None:
                loop.report.stopped = f"epoch {epoch} had no usable step"
                log.warning("Training stopped: %s.", loop.report.stopped, extra={"action": "training_stopped"})
                break
            loop.report.epochs.append({"epoch": float(epoch), **values})
            if values["loss"] < lowest:
                lowest, loop.report.best_epoch = values["loss"], epoch
                best = {name: value.detach().clone() for name, value in nets.state_dict().items()}
            advance(f"loss {values['loss']:.4g}, best epoch {loop.report.best_epoch}")
    if not best:
        raise ModelError(
            "the training had no usable step: every loss was NaN or infinite; lower the learning rate, use "
            "fewer components, or check the networks passed to the detector"
        )
    nets.load_state_dict(best)
    nets.eval()
    return loop.report


def draw_latent_noise(nets: DensityNets, rows: Tensor, seed: int) -> Tensor | None:
    """Draw latent noise for each row, (n, latent), reproducible by `seed`; None without variational heads."""
    if not nets.latent_width:
        return None
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(rows), nets.latent_width, generator=generator).to(rows)


class _TrainingLoop:
    """State of one training: networks, optimizer, random generators and report."""

    def __init__(self, nets: DensityNets, objective: Objective, options: TrainingOptions) -> None:
        self.nets = nets
        self.objective = objective
        self.options = options
        self.report = TrainingReport()
        self.parameters = [p for p in nets.parameters() if p.requires_grad]
        make_optimizer = options.optimizer or (
            lambda given: torch.optim.Adam(given, lr=options.learning_rate, fused=True)
        )
        self.optimizer = make_optimizer(self.parameters)
        if not isinstance(self.optimizer, torch.optim.Optimizer):
            raise ModelError(f"the optimizer function must return a torch optimizer, not {self.optimizer!r}")
        self.order = torch.Generator().manual_seed(options.seed)
        self.noise = torch.Generator().manual_seed(options.seed + 1)

    def run_epoch(self, rows: Tensor) -> int:
        """Take one pass over the rows in random order; return the number of steps that were not skipped."""
        self.nets.train()
        batches = _shuffled_batches(len(rows), self.options.batch_size, self.order)
        return sum(self._take_step(rows[batch.to(rows.device)]) for batch in batches)

    def evaluate(self, rows: Tensor) -> dict[str, float] | None:
        """Return the loss terms over `rows`, with the same noise on each call; None if a term is not finite."""
        self.nets.eval()
        with torch.no_grad():
            try:
                terms = self.objective.loss_terms(
                    self.nets(rows, draw_latent_noise(self.nets, rows, self.options.seed)), rows
                )
            except ModelError:
                return None
        values = {name: float(value) for name, value in terms.items()}
        return values if all(abs(value) < float("inf") for value in values.values()) else None

    def _take_step(self, x: Tensor) -> bool:
        self.optimizer.zero_grad(set_to_none=True)
        width = self.nets.latent_width
        noise = torch.randn(len(x), width, generator=self.noise).to(x) if width else None
        try:
            loss = self.objective.loss_terms(self.nets(x, noise), x)["loss"]
        except ModelError:  # NaN in the mixture's input: skip this batch
            self.report.skipped_steps += 1
            return False
        torch.autograd.backward(loss)
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.parameters, _MAX_GRADIENT_NORM)
        if not bool(torch.isfinite(loss) & torch.isfinite(gradient_norm)):
            self.report.skipped_steps += 1
            return False
        self.optimizer.step()
        return True


def _shuffled_batches(n: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """Return shuffled row indices in batches; a last batch of less than half the size is merged with the one before."""
    order = torch.randperm(n, generator=generator)
    starts = list(range(0, n, size))
    if len(starts) > 1 and n - starts[-1] < size / 2:
        starts.pop()
    return [order[start:end] for start, end in pairwise([*starts, n])]


@contextmanager
def _progress_bar(options: TrainingOptions) -> Iterator[Callable[[str], None]]:
    """Show a progress bar on standard error, by default only on a terminal; yield a function that advances it."""
    shown = sys.stderr.isatty() if options.verbose is None else options.verbose
    if not shown:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=options.epochs)
        yield lambda text: bar.update(task, advance=1, description=text)


def _covariance(rows: Tensor) -> Tensor:
    centred = rows.double()
    centred = centred - centred.mean(0)
    return centred.T @ centred / len(centred)
