"""E step, M step and shrinkage of Gaussian mixtures, as functions on arrays of standardised rows.

Parameters and Cholesky factors are float64. Passes over the rows run in the rows' precision, and their sums are
float64.

Second moments are accumulated in each component's whitened coordinates, v = L^-1 (z - mu), which the E step
computes anyway. In these coordinates they are close to the identity, so the sums stay accurate for any condition
number.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.detectors.mixture_values import CovarianceType

LOG_2PI = math.log(2 * math.pi)
# Smaller responsibilities do not change a float32 sum, and subnormal ones would slow it down several times.
NEGLIGIBLE_RESPONSIBILITY = 1e-8
# Below log(NEGLIGIBLE_RESPONSIBILITY). exp() of lower values is negligible too, and many times slower if subnormal.
_MIN_LOG_RESPONSIBILITY = -30.0
_CHUNK_BYTES = 4 << 20
_RELATIVE_ROUNDING = 1e-7
_BLOCKED_PRODUCT_COLUMNS = 64
# The ridge is at most this multiple of reg_covar times the column's variance. On KDD Cup 99, protocol B (one draw),
# a single Gaussian has F1 .892 without a bound, .922 with 10^4 and .950 with 10^2; scikit-learn's Gaussian on
# standardised columns has .951.
_MAX_RIDGE_FACTOR = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Weights (K,), means (K, D) and covariances (K, D, D) of a mixture, float64."""

    weights: Tensor
    means: Tensor
    covariances: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class CholeskyFactors:
    """Cholesky factors of a mixture, as the E step uses them.

    Attributes:
        lower: The lower Cholesky factors L, (K, D, D).
        inverse: Their inverses, (K, D, D).
        offset: The whitened means L^-1 mu, (K, D).
        log_constant: The log weights plus the log normalising constants, (K,).
    """

    lower: Tensor
    inverse: Tensor
    offset: Tensor
    log_constant: Tensor

    def mean_differences(self, means: Tensor) -> Tensor:
        """Return the means of this mixture minus `means`, (K, D)."""
        return (self.lower @ self.offset.unsqueeze(2)).squeeze(2) - means


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Sufficient statistics in the whitened coordinates of a mixture; they add up over chunks and processes.

    Attributes:
        mass: The sum of the responsibilities, (K,).
        first: The weighted sum of the whitened rows, (K, D).
        second: The weighted sum of their outer products, (K, D, D).
        log_likelihood: The sum of the rows' log-likelihoods, and the sum of their weights.
    """

    mass: Tensor
    first: Tensor
    second: Tensor
    log_likelihood: Tensor

    @staticmethod
    def zeros(k: int, d: int) -> "Moments":
        """Return moments that are zero."""
        f64 = torch.float64
        return Moments(
            mass=torch.zeros(k, dtype=f64),
            first=torch.zeros(k, d, dtype=f64),
            second=torch.zeros(k, d, d, dtype=f64),
            log_likelihood=torch.zeros(2, dtype=f64),
        )

    def flatten(self) -> Tensor:
        """Return all sums as one vector, for a single all_reduce."""
        return torch.cat([self.mass, self.first.flatten(), self.second.flatten(), self.log_likelihood])

    def unflatten(self, flat: Tensor) -> "Moments":
        """Return moments of this shape from a vector made by `flatten`."""
        k, d = self.first.shape
        mass, first, second, log_likelihood = torch.split(flat, [k, k * d, k * d * d, 2])
        return Moments(
            mass=mass,
            first=first.view(k, d),
            second=second.view(k, d, d),
            log_likelihood=log_likelihood,
        )


def factorise(mixture: Mixture) -> CholeskyFactors:
    """Return the Cholesky factors of a mixture with positive definite covariances."""
    k, d = mixture.means.shape
    lower = torch.linalg.cholesky(mixture.covariances)
    eye = torch.eye(d, dtype=torch.float64).expand(k, d, d)
    inverse = torch.linalg.solve_triangular(lower, eye, upper=False)
    log_det = 2 * lower.diagonal(dim1=1, dim2=2).log().sum(1)
    return CholeskyFactors(
        lower=lower,
        inverse=inverse,
        offset=(inverse @ mixture.means.unsqueeze(2)).squeeze(2),
        log_constant=mixture.weights.log() - 0.5 * (d * LOG_2PI + log_det),
    )


def chunk_rows(k: int, d: int) -> int:
    """Return the number of rows per chunk with which an E step stays in the processor cache."""
    return max(256, min(8192, _CHUNK_BYTES // (4 * k * d)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PassFactors:
    """Cholesky factors in the precision of a pass.

    Attributes:
        product: The transposed inverse factors side by side, (D, K * D).
        offset: The negated whitened means, (K * D,).
        log_constant: The log constants, (K, 1).
    """

    product: Tensor
    offset: Tensor
    log_constant: Tensor


def cast_factors(factors: CholeskyFactors, dtype: torch.dtype) -> PassFactors:
    """Return the factors as one matrix of the given precision."""
    k, d = factors.offset.shape
    return PassFactors(
        product=factors.inverse.reshape(k * d, d).to(dtype).T,
        offset=factors.offset.neg().flatten().to(dtype),
        log_constant=factors.log_constant.unsqueeze(1).to(dtype),
    )


def whiten(z: Tensor, factors: PassFactors) -> tuple[Tensor, Tensor]:
    """Return v = L_k^-1 (z - mu_k) as (n, K, D), and log(phi_k N(z | k)) as (K, n)."""
    n, d = z.shape
    v = torch.addmm(factors.offset, z, factors.product).view(n, -1, d)
    return v, factors.log_constant - 0.5 * v.square().sum(2).T


def accumulate_moments(z: Tensor, factors: PassFactors, weights: Tensor | None, total: Moments) -> None:
    """Add the moments of the rows `z` to `total` (E step).

    Args:
        z: Rows in the precision of the pass, (n, D).
        factors: The factors of the current mixture.
        weights: One weight per row, or None for weight one.
        total: The sums; updated in place.
    """
    v, log_joint = whiten(z, factors)
    highest = log_joint.amax(0)
    share = log_joint.sub_(highest).clamp_min_(_MIN_LOG_RESPONSIBILITY).exp_()
    sums = share.sum(0)
    log_likelihood = highest + sums.log()
    share /= sums
    if weights is not None:
        share *= weights
    _add_products(v, share, total)
    log_likelihood_f64 = log_likelihood.double()
    total.log_likelihood[0] += log_likelihood_f64.sum() if weights is None else log_likelihood_f64 @ weights.double()
    total.log_likelihood[1] += len(z) if weights is None else weights.double().sum()


def _add_products(v: Tensor, share: Tensor, total: Moments) -> None:
    """Add the mass and the first and second moments of the whitened rows, weighted by `share` (K, n).

    Rows with a negligible responsibility are left out of a component's product: most events belong to one or two
    components, and the product costs D^2 operations per row.
    """
    for component, weight in enumerate(share):
        selected = (weight >= NEGLIGIBLE_RESPONSIBILITY).nonzero().squeeze(1)
        w = weight.index_select(0, selected)
        part = v[:, component].index_select(0, selected)
        total.mass[component] += w.sum(dtype=torch.float64)
        root_weights = w.sqrt_()
        part *= root_weights.unsqueeze(1)
        total.first[component] += part.T @ root_weights
        _add_square(part, total.second[component])


def _add_square(part: Tensor, total: Tensor) -> None:
    """Add A^T A to `total`; with many columns in four blocks, of which one is the transpose of another."""
    d = part.shape[1]
    if d < _BLOCKED_PRODUCT_COLUMNS:
        total += part.T @ part
        return
    left, right = part[:, : d // 2], part[:, d // 2 :]
    cross = left.T @ right
    total[: d // 2, : d // 2] += left.T @ left
    total[: d // 2, d // 2 :] += cross
    total[d // 2 :, : d // 2] += cross.T
    total[d // 2 :, d // 2 :] += right.T @ right


def maximise_likelihood(mixture: Mixture, factors: CholeskyFactors, moments: Moments) -> Mixture:
    """Return the maximum-likelihood mixture for the moments, without shrinkage (M step)."""
    mass = moments.mass.clamp_min(torch.finfo(torch.float64).tiny)
    shift = moments.first / mass.unsqueeze(1)
    squares = moments.second / mass.view(-1, 1, 1)
    inner = _make_positive_definite(squares - shift.unsqueeze(2) * shift.unsqueeze(1), squares)
    covariances = factors.lower @ inner @ factors.lower.transpose(1, 2)
    return Mixture(
        weights=moments.mass / moments.mass.sum(),
        means=mixture.means + (factors.lower @ shift.unsqueeze(2)).squeeze(2),
        covariances=0.5 * (covariances + covariances.transpose(1, 2)),
    )


def _make_positive_definite(inner: Tensor, squares: Tensor) -> Tensor:
    """Return the covariances with eigenvalues raised to at least the rounding error of their sums.

    Rows that are much closer together than under the previous mixture, for example after outliers are left out,
    have variances below the rounding error of their sums. The next pass measures these directions again, in
    whitened coordinates of the right scale.
    """
    failed = torch.linalg.cholesky_ex(inner).info > 0
    if not bool(failed.any()):
        return inner
    values, directions = torch.linalg.eigh(inner[failed])
    rounding = _RELATIVE_ROUNDING * squares[failed].diagonal(dim1=1, dim2=2).amax(1, keepdim=True).clamp_min(
        _RELATIVE_ROUNDING
    )
    inner = inner.clone()
    inner[failed] = (directions * torch.maximum(values, rounding).unsqueeze(1)) @ directions.transpose(1, 2)
    return inner


def expected_gain(before: CholeskyFactors, moments: Moments, mixture: Mixture, after: CholeskyFactors) -> float:
    """Return the gain in mean log-likelihood of a new mixture for fixed responsibilities, in nats.

    This is the change of Q of Dempster, Laird and Rubin (1977), computed from the moments alone. The log-likelihood
    itself rises by at least this gain, and near the maximum by at most twice this gain.
    """
    rotation = after.inverse @ before.lower
    shift = (after.inverse @ before.mean_differences(mixture.means).unsqueeze(2)).squeeze(2)
    rotated_first = (rotation @ moments.first.unsqueeze(2)).squeeze(2)
    squares = ((rotation @ moments.second) * rotation).sum() - moments.second.diagonal(dim1=1, dim2=2).sum()
    squares += 2 * (shift * rotated_first).sum() + moments.mass @ shift.square().sum(1)
    constants = moments.mass @ (after.log_constant - before.log_constant)
    return float((constants - 0.5 * squares) / moments.mass.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrinkage:
    """Regularisation of covariances: two kinds of pseudo-observations per component, and a ridge.

    Attributes:
        prior_rows: The number of pseudo-observations with the covariance `target`.
        pooled_rows: The number of pseudo-observations with the components' average covariance.
        target: The covariance of all events, (D, D).
        ridge: The number added to each column's variance, (D,).
    """

    prior_rows: float
    pooled_rows: float
    target: Tensor
    ridge: Tensor


def shrink_covariances(mixture: Mixture, mass: Tensor, kind: CovarianceType, shrinkage: Shrinkage) -> Mixture:
    """Return the mixture with regularised, positive definite covariances of the form `kind`.

    Every component gets `pooled_rows` pseudo-observations with the components' average covariance, as in Friedman's
    regularised discriminant analysis (1989), and `prior_rows` with the covariance of all events. Then the ridge of
    the columns is added to the diagonal, and 10^-7 of the component's own variance, which covers the rounding
    errors of the factors.

    The pseudo-observations stand for variation that a component with few rows has not observed yet. They bound its
    confidence. Because they have full covariances, they do not widen a direction that is narrow in all components.
    The ridge keeps the density finite in directions without variance.

    Args:
        mixture: The result of the M step.
        mass: The number of rows of each component, (K,).
        kind: The form of the covariances.
        shrinkage: The pseudo-observations and the ridge.
    """
    cov, pooled_rows, prior_rows = mixture.covariances, shrinkage.pooled_rows, shrinkage.prior_rows
    rows = mass.view(-1, 1, 1)
    if kind == "tied" or pooled_rows > 0:
        average = torch.einsum("k,kij->ij", mixture.weights, cov).expand_as(cov)
        if kind == "tied":
            rows, cov, pooled_rows = mass.sum().expand_as(rows), average, 0.0
        cov = (rows * cov + pooled_rows * average) / (rows + pooled_rows)
    if prior_rows > 0:
        cov = ((rows + pooled_rows) * cov + prior_rows * shrinkage.target) / (rows + pooled_rows + prior_rows)
    if kind in ("diag", "spherical"):
        cov = torch.diag_embed(cov.diagonal(dim1=1, dim2=2))
    variance = cov.diagonal(dim1=1, dim2=2).clamp_min(0.0)
    cov = cov + torch.diag_embed(shrinkage.ridge + _RELATIVE_ROUNDING * variance)
    if kind == "spherical":
        level = cov.diagonal(dim1=1, dim2=2).mean(1)
        cov = level.view(-1, 1, 1) * torch.eye(cov.shape[1], dtype=torch.float64)
    return Mixture(weights=mixture.weights, means=mixture.means, covariances=cov)


def relative_ridge(reg: float, scale: Tensor, max_abs_deviation: Tensor, group_variance: Tensor) -> Tensor:
    """Return the ridge for the variance of each standardised column, (D,).

    In the units of the columns it is scikit-learn's `reg_covar`, with three bounds. It is at most reg_covar times
    the squared maximum deviation, so that it does not dominate a column of scale 1e-8. It is at most a hundred times
    reg_covar times the variance: the variance of a column with a few large values is far below its squared maximum
    deviation. It is at least a hundredth of reg_covar times the variance, so that a column of scale 1e8 does not
    become singular, or a hundredth of the variance of its groups where the column consists of tight groups far apart.

    Args:
        reg: The setting `reg_covar`.
        scale: The standard deviations of the columns, (D,).
        max_abs_deviation: The maximum absolute deviations of the columns from their centres, (D,).
        group_variance: The variance of the tightest group of each standardised column, (D,); infinite without groups.
    """
    least = (0.01 * group_variance).clamp_max(0.01 * reg)
    most = torch.minimum(reg * (max_abs_deviation / scale).square(), torch.full_like(scale, _MAX_RIDGE_FACTOR * reg))
    return torch.maximum(torch.minimum(reg / scale.square(), most), least)


def keep_components(mixture: Mixture, alive: Tensor) -> Mixture:
    """Return the mixture of the components marked in `alive`, with weights that sum to one."""
    weights = mixture.weights[alive]
    return Mixture(
        weights=weights / weights.sum(),
        means=mixture.means[alive],
        covariances=mixture.covariances[alive],
    )


def rounding_amplification(factors: CholeskyFactors) -> float:
    """Return the largest factor by which whitening enlarges the rounding error of a standardised row."""
    return float(factors.inverse.abs().sum(2).max())
