"""Gaussian mixture parameters from responsibilities, and energies, as differentiable functions.

Sums and Cholesky factors are computed in float64, distances too where float32 is not accurate enough. Results have
the dtype of z. Rows are processed in chunks with at most `WORK_ELEMENTS` numbers in the work array, so memory does
not grow as n K D D.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from config.errors import ModelError
from monitor.detectors.inputs.arguments import check_number
from monitor.detectors.inputs.checks import check_finite

LOG_2PI = math.log(2.0 * math.pi)

ArrayLike: TypeAlias = Tensor | npt.NDArray[Any]

WORK_ELEMENTS = 1 << 17  # 1 MB of float64: the work array of a chunk fits in the second-level cache
WORK_ELEMENTS_CUDA = 1 << 24  # 128 MB: a GPU is faster with few large kernels
BLOCK_ROWS = 192  # a multiple of the row block of every matrix kernel, so that no row is a remainder
PADDING_ROWS = 48  # rows at the end of a block without an event, where another library may have a remainder
MAX_AMPLIFICATION = 32.0  # up to this loss of precision distances are computed in float32, above it in float64
TINY_VARIANCE = 1e-30  # 1 / variance stays finite in float32, and sums and gradients in float64


def gmm_params(z: ArrayLike, gamma: ArrayLike, eps: float = 1e-6) -> tuple[Any, Any, Any, Any, Any]:
    """Return weights, means, covariances, Cholesky factors and log determinants of a mixture.

    An empty component, with total responsibility 0, gets weight 0, the mean of the data, a zero covariance and the
    factor of `eps` I. These are finite, and `gmm_energy` ignores the component. Numpy arrays give numpy arrays, and
    tensors give tensors.

    Args:
        z: Samples, (n, D), float32 or float64.
        gamma: Non-negative responsibilities, (n, K).
        eps: Added to every variance before the factorisation, in the squared units of `z`. Choose another value for
            data of another scale than 1. If a factorisation fails nevertheless, a larger value is used.

    Returns:
        `(phi, mu, cov, L, log_det_cov)`: (K,), (K, D), (K, D, D), (K, D, D), (K,); `cov` does not include `eps`.

    Raises:
        ModelError: The shapes do not match, there is no row, or a value is NaN or infinite.
    """
    eps = check_number("gmm_params", "eps", eps, low=0.0)
    (rows, resp), numpy_out = _to_tensors(z, gamma)
    _check_samples(rows, resp)
    n, D = rows.shape
    K = resp.shape[1]
    mass = resp.sum(0, dtype=torch.float64)
    divisor = torch.where(mass > 0, mass, torch.ones_like(mass))
    centre = rows.detach().mean(
        0, dtype=torch.float64
    )  # the result does not depend on it, so it is detached from the gradient
    shift = rows.new_zeros((K, D), dtype=torch.float64)
    for part in _row_chunks(rows, K * D):
        shift = shift + resp[part].double().mT @ (rows[part].double() - centre)
    shift = shift / divisor[:, None]
    scatter = rows.new_zeros((K, D, D), dtype=torch.float64)
    for part in _row_chunks(rows, K * D):
        deviation = (rows[part].double() - centre)[:, None, :] - shift
        weighted = deviation * resp[part].double()[:, :, None]
        scatter = scatter + weighted.permute(1, 2, 0) @ deviation.transpose(0, 1)
    cov = scatter / divisor[:, None, None]
    cov = 0.5 * (cov + cov.mT)
    phi, mu = mass / n, centre + shift
    if not _all_finite(phi, mu, cov.to(rows.dtype)):
        _check_finite_rows("gmm_params", rows, "z")
        _check_finite_rows("gmm_params", resp, "gamma")
        raise ModelError(f"gmm_params: the variances of z overflow {rows.dtype}; change the unit of z")
    L = cholesky_with_ridge(cov, eps)
    log_det = 2.0 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _to_caller_type((phi, mu, cov, L, log_det), rows.dtype, numpy_out)


def gmm_energy(
    z: ArrayLike,
    phi: ArrayLike,
    mu: ArrayLike,
    cov: ArrayLike,
    L: ArrayLike,
    log_det_cov: ArrayLike,
    return_mean: bool = True,  # noqa: FBT001, FBT002
) -> tuple[Any, Any]:
    """Return the energy of each sample (or their mean), in nats, and the sum of the inverse variances.

    The energy is finite at any distance: an overflow gives the largest number of the dtype. Components of weight 0
    are ignored. Factors may have a higher precision than `z`, which is used.

    Args:
        z: Samples, (n, D).
        phi: Weights, (K,).
        mu: Means, (K, D).
        cov: Covariances, (K, D, D); only their diagonals are used, for the second result.
        L: Cholesky factors of the covariances plus the ridge, (K, D, D).
        log_det_cov: Log determinants of the covariances plus the ridge, (K,).
        return_mean: Return the mean over the samples instead of one energy per sample.

    Raises:
        ModelError: The shapes do not match, there is no row, a value is NaN or infinite, or all weights are zero.
    """
    (rows, weights, means, covs, factors, log_dets), numpy_out = _to_tensors(z, phi, mu, cov, L, log_det_cov)
    _check_mixture(rows, weights, means, covs, factors, log_dets)
    _check_finite_rows("gmm_energy", rows, "z")
    alive = weights > 0
    if not bool(alive.all()):
        weights, means, covs, factors, log_dets = (t[alive] for t in (weights, means, covs, factors, log_dets))
    if not _all_finite(means, covs, factors, log_dets):
        raise ModelError("gmm_energy: mu, cov, L or log_det_cov holds NaN or infinity; estimate them again")
    density = log_densities(rows, means, factors, log_dets)
    energy = -torch.logsumexp(weights.double().log() + density, dim=1)
    largest = torch.finfo(rows.dtype).max
    energy = energy.clamp(-largest, largest)
    if return_mean:
        energy = (energy / len(rows)).sum()
    variances = covs.double().diagonal(dim1=-2, dim2=-1).clamp_min(TINY_VARIANCE)
    cov_diag = (1.0 / variances).sum().clamp_max(largest)
    result = _to_caller_type((energy, cov_diag), rows.dtype, numpy_out)
    return result[0], result[1]


def log_densities(z: Tensor, mu: Tensor, L: Tensor, log_det_cov: Tensor) -> Tensor:
    """Return log N(z_i | mu_k, L_k L_k^T) of each sample and component, (n, K), in float64."""
    D = z.shape[1]
    return -0.5 * (squared_distances(z, mu, L) + (D * LOG_2PI + log_det_cov.double()))


def squared_distances(z: Tensor, mu: Tensor, L: Tensor) -> Tensor:
    """Return the squared Mahalanobis distance of each sample to each component, (n, K), in float64."""
    return make_metric(mu, L, z.dtype, exact=_requires_grad(z, mu, L)).squared_distances(z)


@dataclass(frozen=True, slots=True, kw_only=True)
class MahalanobisMetric:
    """Mahalanobis distances to the components of one mixture.

    Attributes:
        centre: A common centre that is subtracted from the samples, (D,).
        offsets: The means minus the centre, (K, D).
        whiten: The inverse Cholesky factors, (K, D, D).
    """

    centre: Tensor
    offsets: Tensor
    whiten: Tensor

    def squared_distances(self, z: Tensor) -> Tensor:
        """Return the finite squared distance of each row to each component, (n, K), in float64."""
        K, D = self.offsets.shape
        work = self.whiten.dtype
        bound = (
            math.sqrt(torch.finfo(work).max) / 1e6
        )  # squares of larger values could overflow, and the order of far samples would be lost
        distances = []
        for part in _row_chunks(z, K * D):
            deviation = ((z[part].to(work) - self.centre).mT - self.offsets[:, :, None]).clamp(-bound, bound)
            distances.append((self.whiten @ deviation).square().sum(1).mT)
        return torch.cat(distances).double().clamp_max(torch.finfo(torch.float64).max / 8)


def make_metric(mu: Tensor, L: Tensor, dtype: torch.dtype, *, exact: bool = False) -> MahalanobisMetric:
    """Return the metric of components with means `mu` and Cholesky factors `L` for samples of `dtype`.

    Distances of float32 samples are computed in float32 if cancellation is small: the factors are well-conditioned,
    and the means are close together relative to the standard deviations. Otherwise, and with `exact`, they are
    computed in float64. `exact` is for tensors with gradients.
    """
    D = mu.shape[1]
    L, mu = L.double(), mu.double()
    eye = torch.eye(D, dtype=L.dtype, device=L.device).expand_as(L)
    whiten = torch.linalg.solve_triangular(L, eye, upper=False)
    work = torch.float64
    centre = mu.detach().mean(0)
    if dtype == torch.float32 and not exact:
        centre = centre.float().double()  # exactly representable in both precisions
        reach = L.flatten(1).norm(dim=1) + (mu - centre).norm(dim=1)
        if bool((reach * whiten.flatten(1).norm(dim=1) / D).max() <= MAX_AMPLIFICATION):
            work = torch.float32
    return MahalanobisMetric(centre=centre.to(work), offsets=(mu - centre).to(work), whiten=whiten.to(work))


def cholesky_with_ridge(cov: Tensor, eps: float) -> Tensor:
    """Return the Cholesky factors of cov + eps I, with a larger ridge where the factorisation fails.

    If `eps` is below the rounding error of a singular covariance, its ridge is relative to its largest variance:
    1e-13 at first, and ten times more at each further attempt.

    Raises:
        ModelError: The factorisation fails even with a ridge of the largest variance.
    """
    D = cov.shape[-1]
    eye = torch.eye(D, dtype=cov.dtype, device=cov.device)
    ridge = torch.full(cov.shape[:1], eps, dtype=cov.dtype, device=cov.device)
    largest = cov.detach().diagonal(dim1=-2, dim2=-1).amax(-1).clamp_min(TINY_VARIANCE)
    for relative in (0.0, *(10.0**e for e in range(-13, 1))):
        regularised = cov + torch.maximum(ridge, relative * largest)[:, None, None] * eye
        L, failed = torch.linalg.cholesky_ex(regularised)
        if not bool(failed.any()):
            return cast("Tensor", L)
        ridge = torch.where(failed > 0, torch.maximum(ridge, 10 * relative * largest), ridge)
    raise ModelError("gmm_params: a covariance has no Cholesky factor; are the responsibilities negative?")


def _row_chunks(z: Tensor, width: int) -> Iterator[slice]:
    n = len(z)
    rows = (WORK_ELEMENTS_CUDA if z.is_cuda else WORK_ELEMENTS) // width
    rows = max(rows // BLOCK_ROWS * BLOCK_ROWS, BLOCK_ROWS)
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def _requires_grad(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _to_tensors(*arrays: ArrayLike) -> tuple[list[Tensor], bool]:
    numpy_out = not any(isinstance(a, Tensor) for a in arrays)
    try:
        tensors = [a if isinstance(a, Tensor) else torch.as_tensor(_writable(a)) for a in arrays]
    except (TypeError, ValueError) as error:
        raise ModelError(f"gmm_params and gmm_energy take tensors and arrays of numbers: {error}") from error
    if any(t.is_complex() for t in tensors):
        raise ModelError("gmm_params and gmm_energy take real numbers, not complex ones")
    floats = [t if t.is_floating_point() else t.to(torch.float64) for t in tensors]
    device = next((t.device for t in floats if t.device.type != "cpu"), floats[0].device)
    return [t.to(device) for t in floats], numpy_out


def _writable(array: ArrayLike) -> npt.NDArray[Any]:
    """Return the array, or a copy if it is read-only; torch warns of sharing read-only memory."""
    values = np.asarray(array)
    return values if values.flags.writeable else values.copy()


def _to_caller_type(tensors: tuple[Tensor, ...], dtype: torch.dtype, numpy_out: bool) -> tuple[Any, ...]:  # noqa: FBT001
    results = tuple(t.to(dtype) for t in tensors)
    return tuple(t.numpy() for t in results) if numpy_out else results


def _check_samples(z: Tensor, gamma: Tensor) -> None:
    if z.ndim != 2 or gamma.ndim != 2 or len(z) != len(gamma):
        raise ModelError(
            "gmm_params: z must be (n, D) and gamma (n, K) with the same n; "
            f"got {tuple(z.shape)} and {tuple(gamma.shape)}"
        )
    if 0 in (*z.shape, *gamma.shape):
        raise ModelError(
            "gmm_params: z and gamma must have at least one row and one column; "
            f"z is {tuple(z.shape)}, gamma {tuple(gamma.shape)}"
        )


def _all_finite(*tensors: Tensor) -> bool:
    return bool(torch.stack([torch.isfinite(t).all() for t in tensors]).all())


def _check_finite_rows(owner: str, array: Tensor, name: str) -> None:
    """Raise a ModelError that names the rows and columns of NaN and infinity.

    The minimum and maximum are checked first, because this needs no copy.
    """
    if not _all_finite(*array.detach().aminmax()):
        check_finite(array.detach().double().cpu().numpy(), owner=owner, what=name)


def _check_mixture(z: Tensor, *mixture: Tensor) -> None:
    if z.ndim != 2 or 0 in z.shape:
        raise ModelError(f"gmm_energy: z must be (n, D) with at least one row; got {tuple(z.shape)}")
    K, D = len(mixture[0]), z.shape[1]
    expected = {"phi": (K,), "mu": (K, D), "cov": (K, D, D), "L": (K, D, D), "log_det_cov": (K,)}
    for (name, shape), array in zip(expected.items(), mixture, strict=True):
        if tuple(array.shape) != shape:
            raise ModelError(
                f"gmm_energy: {name} must have shape {shape} for {K} components of {D} features; "
                f"got {tuple(array.shape)}"
            )
    if not _all_finite(mixture[0]):
        raise ModelError("gmm_energy: phi holds NaN or infinity; estimate it again")
    if not bool((mixture[0] > 0).any()):
        raise ModelError("gmm_energy: all weights in phi are zero; check the responsibilities")
