"""Scoring with fitted networks: events to energies, in blocks of one fixed shape.

The energy of an event is identical to the bit in any batch. Blocks are padded to their shape, linear layers
are computed with the rows along the fast axis, and the last rows of a block stay empty. (With the rows along
the slow axis, or in the last rows, matrix libraries use other kernels: 1 of 5 shapes tried differed in the
last bit.) One thread computes a block, so that the number of cores has no influence. The networks are trained
in float32 and score in float64; an energy is rounded once, at the end.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from monitor.detectors.explain.derived import FeatureSource, find_sources
from monitor.detectors.explain.explanation import Explanation
from monitor.detectors.explain.lines import lines_of_fields
from monitor.detectors.gmm_functions import BLOCK_ROWS, PADDING_ROWS
from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.inputs.scaling import Scaling, fit_column_scaling, row_chunks
from monitor.detectors.networks.density_nets import DensityNets
from monitor.detectors.networks.latent_mixture import LatentDensity, LatentMixture, estimate_latent_mixture
from monitor.detectors.score.threads import full_precision_matmul, single_torch_thread

F64 = NDArray[np.float64]

_MAX_DEVIATIONS = 1e6  # inputs are clipped to this many deviations: float32 sums stay finite
_BLOCK_ELEMENTS = 1 << 15
_MAX_BLOCK_ROWS = 5 * BLOCK_ROWS
_DRAWS_PER_PASS = 10
_FINALISE_CHUNK_ROWS = 4096
_RANGE_DEVIATIONS = 2.0
_MIN_RESIDUAL = 1e-6  # in deviations of the feature: the floor for columns that are reconstructed exactly


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTransform:
    """Conversion of events to network inputs: standardised, clipped, reshaped, on a device."""

    scaling: Scaling
    shape: tuple[int, ...]
    device: str

    def to_tensor(self, z: F64, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return standardised rows, (n, D), as network inputs, (n, *shape)."""
        clipped = torch.from_numpy(np.clip(z, -_MAX_DEVIATIONS, _MAX_DEVIATIONS))
        return clipped.to(self.device, dtype).reshape(len(z), *self.shape)

    def transform_training_rows(self, rows: FloatArray) -> tuple[Tensor, float]:
        """Return all rows as network inputs, and the largest standardised length of a row (1 if it is 0)."""
        inputs = torch.empty(len(rows), *self.shape, device=self.device)
        radius = 0.0
        for part in row_chunks(*rows.shape):
            z = self.scaling.standardise(rows[part])
            radius = max(radius, float(np.sqrt(np.square(z).sum(axis=1)).max()))
            inputs[part] = self.to_tensor(z)
        return inputs, radius if radius > 0 else 1.0


def make_input_transform(rows: FloatArray, shape: tuple[int, ...], device: str, *, standardise: bool) -> InputTransform:
    """Fit the input transform on training rows; images get one centre and one deviation for all pixels."""
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
    """Trained networks with their mixture.

    Attributes:
        nets: The networks as trained, in float32.
        scoring_nets: The copy that scores, of `dtype`; `nets` itself where no float64 copy can be made.
        dtype: The precision of `scoring_nets`.
        keep_transposed: Keep the outputs of linear layers transposed; False if the user passed a network.
        input_transform: Conversion of events to network inputs.
        mixture: The mixture over latent and reconstruction features.
        density: The same mixture on the scoring device.
        residuals: The root mean square distance of each feature from its reconstruction in training,
            (D,), standardised.
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
        """The number of events in a block; the padding rows behind them stay empty."""
        wanted = _BLOCK_ELEMENTS // math.prod(self.input_transform.shape) // BLOCK_ROWS * BLOCK_ROWS
        return min(max(wanted, BLOCK_ROWS), _MAX_BLOCK_ROWS) - PADDING_ROWS

    def energies(self, rows: FloatArray, noise: Tensor | None = None) -> FloatArray:
        """Return the energy of each row, (n,), in the rows' precision.

        Args:
            rows: Events (n, D).
            noise: Draws of the latent noise, (draws, latent); the energy is the mean over them.
        """
        out = np.empty(len(rows), dtype=rows.dtype)
        largest = float(np.finfo(rows.dtype).max)
        for start in range(0, len(rows), self.block_rows):
            z = self.input_transform.scaling.standardise(rows[start : start + self.block_rows])
            _, energies = self._score_block(z, noise)
            out[start : start + len(z)] = energies.clip(-largest, largest)
        return out

    def explain(
        self,
        rows: FloatArray,
        features: tuple[str, ...],
        *,
        typical_energy: float,
        usual: F64 | None,
        derived: Mapping[str, FeatureSource] | None = None,
    ) -> Explanation:
        """Return the distance of each value from its reconstruction, and the energy saved by replacing the value.

        The energy above the typical energy is divided among the features in proportion to the energy saved.

        Args:
            rows: Events (n, D).
            features: The D feature names.
            typical_energy: The energy of a typical event, in nats.
            usual: The ends of the usual range of each feature, (2, D). None takes two root mean square distances
                around the reconstruction.
            derived: The source of each feature that is derived from a field.
        """
        sources = find_sources(features, derived)
        z = self.input_transform.scaling.standardise(rows)
        reconstruction, energy = np.empty_like(z), np.empty(len(z))
        for rows_slice in self._block_slices(len(z)):
            reconstruction[rows_slice], energy[rows_slice] = self._score_block(z[rows_slice], None)
        cost = np.empty_like(z)
        for j in range(z.shape[1]):
            replaced_z = z.copy()
            replaced_z[:, j] = reconstruction[:, j]
            for rows_slice in self._block_slices(len(z)):
                cost[rows_slice, j] = energy[rows_slice] - self._score_block(replaced_z[rows_slice], None)[1]
        scale = self.input_transform.scaling.scale
        expected = reconstruction * scale + self.input_transform.scaling.centre
        half_range = _RANGE_DEVIATIONS * self.residuals * scale
        shares = _positive_shares(cost, np.square((z - reconstruction) / self.residuals))
        return Explanation(
            features=features,
            value=rows.astype(np.float64),
            contribution=(energy - typical_energy)[:, None] * shares,
            typical_energy=typical_energy,
            z=(z - reconstruction) / self.residuals,
            cost=cost,
            expected=expected,
            alternatives=np.full((*z.shape, 0), np.nan),
            low=expected - half_range if usual is None else np.broadcast_to(usual[0], z.shape),
            high=expected + half_range if usual is None else np.broadcast_to(usual[1], z.shape),
            line=lines_of_fields([source.field for source in sources], len(z)),
            sources=sources,
        )

    def _block_slices(self, n: int) -> Iterator[slice]:
        return (slice(start, start + self.block_rows) for start in range(0, n, self.block_rows))

    def _score_block(self, z: F64, noise: Tensor | None) -> tuple[F64, F64]:
        """Return the reconstructions and energies of at most one block of standardised rows."""
        block = np.zeros((self.block_rows + PADDING_ROWS, z.shape[1]))
        block[: len(z)] = z
        with torch.no_grad(), single_torch_thread(), full_precision_matmul(), _TransposedLinear(self.keep_transposed):
            x = self.input_transform.to_tensor(block, self.dtype)
            latent, log_variance = self.scoring_nets.encode(x)
            if noise is None or log_variance is None:
                decoded, z_latent = self.scoring_nets.reconstruct(x, latent)
                energies = self.density.energies(z_latent)
            else:
                deviation = torch.exp(0.5 * log_variance)
                total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
                for draws in torch.split(noise.to(latent), _DRAWS_PER_PASS):
                    drawn = latent + deviation * draws[:, None, :]
                    repeated = x.repeat(len(draws), *([1] * (x.ndim - 1)))
                    decoded, z_latent = self.scoring_nets.reconstruct(repeated, drawn.flatten(0, 1))
                    total += self.density.energies(z_latent).view(len(draws), len(x)).sum(0)
                energies = total / len(noise)
        reconstruction = decoded[: len(z)].flatten(1).double().cpu().numpy()
        return reconstruction, energies[: len(z)].cpu().numpy() + self.density.distance_penalty(z)


def _positive_shares(cost: F64, squares: F64) -> F64:
    """Return the share of each positive cost in their sum, (n, D).

    Rows without a positive cost have the shares of `squares`, and rows of zeros equal shares.
    """
    parts = np.maximum(cost, 0.0)
    for fallback in (squares, np.ones_like(parts)):
        parts = np.where(parts.any(axis=1, keepdims=True), parts, fallback)
    parts /= parts.max(axis=1, keepdims=True)
    shares: F64 = parts / parts.sum(axis=1, keepdims=True)
    return shares


class _TransposedLinear(TorchFunctionMode):
    """Torch function mode that computes linear layers as (W x^T)^T, also in modules passed by the user.

    With `keep_transposed` the result keeps that memory order, which saves the next layer a transposition.
    Modules passed by the user get contiguous rows.
    """

    def __init__(self, keep_transposed: bool) -> None:  # noqa: FBT001 - a private class
        super().__init__()
        self.keep_transposed = keep_transposed

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
    transposed = weight @ x.reshape(-1, x.shape[-1]).mT.contiguous()
    if bias is not None:
        transposed = transposed + bias[:, None]
    return transposed.mT.reshape(*x.shape[:-1], len(weight))


def to_double_precision(nets: DensityNets, sample: Tensor) -> tuple[DensityNets, torch.dtype]:
    """Return a float64 copy of the networks; the networks themselves if one of them supports only float32."""
    try:
        scoring_nets = copy.deepcopy(nets).double().eval()
        with torch.no_grad():
            result = scoring_nets(sample.double())
    except RuntimeError:  # a module of the user creates float32 tensors or cannot be copied
        return nets, torch.float32
    return (scoring_nets, torch.float64) if result.z.dtype == torch.float64 else (nets, torch.float32)


def finalise_networks(
    nets: DensityNets,
    transform: InputTransform,
    inputs: Tensor,
    radius: float,
    noise: Tensor | None,
    *,
    keep_transposed: bool,
) -> FittedNetworks:
    """Estimate the mixture and the residuals over the whole training set, in chunks.

    Args:
        nets: The trained networks.
        transform: Conversion of events to network inputs.
        inputs: The training rows as network inputs.
        radius: The largest standardised length of a training row.
        noise: One draw of latent noise for each row, as in training: the mixture includes the latent variance.
        keep_transposed: No network was passed by the user.
    """
    scoring_nets, dtype = to_double_precision(nets, inputs[:2])
    z, gamma = [], []
    squares = torch.zeros(inputs[0].numel(), dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, len(inputs), _FINALISE_CHUNK_ROWS):
            rows_slice = slice(start, start + _FINALISE_CHUNK_ROWS)
            part = inputs[rows_slice].to(dtype)
            result = scoring_nets(part, None if noise is None else noise[rows_slice].to(dtype))
            z.append(result.z)
            gamma.append(result.gamma)
            squares += (part - result.reconstruction).flatten(1).double().square().sum(0).cpu()
    mixture = estimate_latent_mixture(torch.cat(z), torch.cat(gamma), radius)
    return FittedNetworks(
        nets=nets,
        scoring_nets=scoring_nets,
        dtype=dtype,
        keep_transposed=keep_transposed,
        input_transform=transform,
        mixture=mixture,
        density=mixture.to_density(transform.device),
        residuals=np.sqrt(squares.numpy() / len(inputs)).clip(_MIN_RESIDUAL),
    )
