"""Detectors: events through fitted networks to energies, in blocks of one fixed shape.

An energy does not depend, to the bit, on what it was computed with: blocks are padded to their shape, linear
layers are computed with the rows along the fast axis, and the last lanes stay empty. (With the rows along
the slow axis, or in the last lanes, matrix libraries use other kernels: 1 of 5 shapes tried differed in the
last bit.) One thread computes them, so that the number of cores does not matter either. The networks are
trained in float32 and score in float64: an energy is rounded once, at its end.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from monitor.detectors.explain.explanation import Explanation
from monitor.detectors.gmm_functions import BLOCK_ROWS, PADDING_ROWS
from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.inputs.scaling import Scaling, fit_column_scaling, row_chunks
from monitor.detectors.networks.density_nets import DensityNets
from monitor.detectors.networks.latent_mixture import LatentDensity, LatentMixture, estimate_latent_mixture
from monitor.detectors.score.threads import full_precision_matmul, single_torch_thread

F64 = NDArray[np.float64]

_MAX_DEVIATIONS = 1e6  # the networks see no value beyond this many deviations: float32 sums stay finite
_BLOCK_ELEMENTS = 1 << 15
_MAX_LANES = 5 * BLOCK_ROWS
_DRAWS_PER_PASS = 10
_FINALISE_CHUNK_ROWS = 4096
_RANGE_DEVIATIONS = 2.0
_MIN_RESIDUAL = 1e-6  # of a feature's deviation: for a column that is always reconstructed exactly


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTransform:
    """How the networks see events: standardised, within bounds, in their own shape, on a device."""

    scaling: Scaling
    shape: tuple[int, ...]
    device: str

    def to_tensor(self, z: F64, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return standardised rows as the networks take them."""
        clipped = torch.from_numpy(np.clip(z, -_MAX_DEVIATIONS, _MAX_DEVIATIONS))
        return clipped.to(self.device, dtype).reshape(len(z), *self.shape)

    def transform_training_rows(self, rows: FloatArray) -> tuple[Tensor, float]:
        """Return all rows as the networks take them, and the largest standardised length among them."""
        seen = torch.empty(len(rows), *self.shape, device=self.device)
        radius = 0.0
        for part in row_chunks(*rows.shape):
            z = self.scaling.standardise(rows[part])
            radius = max(radius, float(np.sqrt(np.square(z).sum(axis=1)).max()))
            seen[part] = self.to_tensor(z)
        return seen, radius if radius > 0 else 1.0


def make_input_transform(rows: FloatArray, shape: tuple[int, ...], device: str, *, standardise: bool) -> InputTransform:
    """Return the lens for training rows; images get one centre and one deviation for all their pixels."""
    d = rows.shape[1]
    if not standardise:
        return InputTransform(scaling=Scaling(centre=np.zeros(d), scale=np.ones(d)), shape=shape, device=device)
    columns = rows if len(shape) == 1 else rows.reshape(-1, 1)
    scaling = fit_column_scaling(columns, None, lambda total: total, lambda extreme: extreme)
    if len(shape) > 1:
        scaling = Scaling(centre=np.repeat(scaling.centre, d), scale=np.repeat(scaling.scale, d))
    return InputTransform(scaling=scaling, shape=shape, device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedNetworks:
    """Trained networks with their mixture, and each feature's usual distance from its reconstruction.

    `precise` is the copy that scores, of `dtype`; `keep_lanes` holds where no network came from a user.
    """

    nets: DensityNets
    scoring_nets: DensityNets
    dtype: torch.dtype
    keep_transposed: bool
    input_transform: InputTransform
    mixture: LatentMixture
    density: LatentDensity
    residuals: F64

    @property
    def block_rows(self) -> int:
        """How many events a block holds; its last lanes stay empty."""
        wanted = _BLOCK_ELEMENTS // math.prod(self.input_transform.shape) // BLOCK_ROWS * BLOCK_ROWS
        return min(max(wanted, BLOCK_ROWS), _MAX_LANES) - PADDING_ROWS

    def energies(self, rows: FloatArray, noise: Tensor | None = None) -> FloatArray:
        """Return each row's energy in the rows' precision, the mean over the draws of `noise` if given."""
        out = np.empty(len(rows), dtype=rows.dtype)
        largest = float(np.finfo(rows.dtype).max)
        for start in range(0, len(rows), self.block_rows):
            z = self.input_transform.scaling.standardise(rows[start : start + self.block_rows])
            _, energies = self._score_block(z, noise)
            out[start : start + len(z)] = energies.clip(-largest, largest)
        return out

    def explain(self, rows: FloatArray, features: tuple[str, ...]) -> Explanation:
        """Return how far each value is from its reconstruction, and what replacing it by that would save."""
        z = self.input_transform.scaling.standardise(rows)
        made, energy = np.empty_like(z), np.empty(len(z))
        for place in self._block_slices(len(z)):
            made[place], energy[place] = self._score_block(z[place], None)
        cost = np.empty_like(z)
        for j in range(z.shape[1]):
            replaced = z.copy()
            replaced[:, j] = made[:, j]
            for place in self._block_slices(len(z)):
                cost[place, j] = energy[place] - self._score_block(replaced[place], None)[1]
        scale = self.input_transform.scaling.scale
        expected = made * scale + self.input_transform.scaling.centre
        reach = _RANGE_DEVIATIONS * self.residuals * scale
        return Explanation(
            features=features,
            value=rows.astype(np.float64),
            z=(z - made) / self.residuals,
            cost=cost,
            expected=expected,
            low=expected - reach,
            high=expected + reach,
        )

    def _block_slices(self, n: int) -> Iterator[slice]:
        return (slice(start, start + self.block_rows) for start in range(0, n, self.block_rows))

    def _score_block(self, z: F64, noise: Tensor | None) -> tuple[F64, F64]:
        """Return reconstruction and energy of up to one block of standardised rows."""
        block = np.zeros((self.block_rows + PADDING_ROWS, z.shape[1]))
        block[: len(z)] = z
        with torch.no_grad(), single_torch_thread(), full_precision_matmul(), _TransposedLinear(self.keep_transposed):
            x = self.input_transform.to_tensor(block, self.dtype)
            latent, log_variance = self.scoring_nets.encode(x)
            if noise is None or log_variance is None:
                made, z_latent = self.scoring_nets.reconstruct(x, latent)
                energies = self.density.energies(z_latent)
            else:
                deviation = torch.exp(0.5 * log_variance)
                total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
                for draws in torch.split(noise.to(latent), _DRAWS_PER_PASS):
                    drawn = latent + deviation * draws[:, None, :]
                    repeated = x.repeat(len(draws), *([1] * (x.ndim - 1)))
                    made, z_latent = self.scoring_nets.reconstruct(repeated, drawn.flatten(0, 1))
                    total += self.density.energies(z_latent).view(len(draws), len(x)).sum(0)
                energies = total / len(noise)
        reconstruction = made[: len(z)].flatten(1).double().cpu().numpy()
        return reconstruction, energies[: len(z)].cpu().numpy() + self.density.distance_penalty(z)


class _TransposedLinear(TorchFunctionMode):
    """Computes linear layers, also those of modules that a user gave, as (W x^T)^T.

    With `keep_lanes` the result stays in that order, which spares the next layer a transposition; modules
    that a user gave get rows in their usual order.
    """

    def __init__(self, keep_lanes: bool) -> None:  # noqa: FBT001 - a private class
        super().__init__()
        self.keep_transposed = keep_lanes

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.nn.functional.linear:
            result = _transposed_linear(*args, **(kwargs or {}))
            return result if self.keep_transposed else result.contiguous()
        return func(*args, **(kwargs or {}))


def _transposed_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    lanes = weight @ x.reshape(-1, x.shape[-1]).mT.contiguous()
    if bias is not None:
        lanes = lanes + bias[:, None]
    return lanes.mT.reshape(*x.shape[:-1], len(weight))


def to_double_precision(nets: DensityNets, sample: Tensor) -> tuple[DensityNets, torch.dtype]:
    """Return a copy of the networks in float64; the networks themselves where one of them cannot take it."""
    try:
        wide = copy.deepcopy(nets).double().eval()
        with torch.no_grad():
            result = wide(sample.double())
    except RuntimeError:  # a module of the user's makes float32 of its own, or cannot be copied
        return nets, torch.float32
    return (wide, torch.float64) if result.z.dtype == torch.float64 else (nets, torch.float32)


def finalise_networks(
    nets: DensityNets, lens: InputTransform, seen: Tensor, radius: float, noise: Tensor | None, *, keep_lanes: bool
) -> FittedNetworks:
    """Fix the mixture and the usual residuals over the whole training set, a piece at a time.

    Args:
        nets: The trained networks.
        lens: How they see events.
        seen: The training rows as they see them.
        radius: The largest standardised length among the rows.
        noise: One draw for each row, as in the training: the latent's own spread belongs to the mixture.
        keep_lanes: No network came from a user.
    """
    wide, dtype = to_double_precision(nets, seen[:2])
    z, gamma = [], []
    squares = torch.zeros(seen[0].numel(), dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, len(seen), _FINALISE_CHUNK_ROWS):
            place = slice(start, start + _FINALISE_CHUNK_ROWS)
            part = seen[place].to(dtype)
            result = wide(part, None if noise is None else noise[place].to(dtype))
            z.append(result.z)
            gamma.append(result.gamma)
            squares += (part - result.reconstruction).flatten(1).double().square().sum(0).cpu()
    mixture = estimate_latent_mixture(torch.cat(z), torch.cat(gamma), radius)
    return FittedNetworks(
        nets=nets,
        scoring_nets=wide,
        dtype=dtype,
        keep_transposed=keep_lanes,
        input_transform=lens,
        mixture=mixture,
        density=mixture.to_density(lens.device),
        residuals=np.sqrt(squares.numpy() / len(seen)).clip(_MIN_RESIDUAL),
    )
