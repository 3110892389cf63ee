"""Detectors: expectation-maximisation for Gaussian mixtures, as free functions on arrays.

Everything here works on standardised rows. Parameters and factors are float64; the passes over the rows
run in the rows' own precision and are added up in float64.

The second moments are gathered in each component's own whitened coordinates, v = L^-1 (z - mu): there
they are near the identity, so that sums keep their digits whatever the condition number, and the E step
has computed v already.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.detectors.mixture_values import CovarianceType

LOG_2PI = math.log(2 * math.pi)
# Responsibilities below this add nothing to a float32 sum, and as subnormals would slow it several times.
NEGLIGIBLE_RESPONSIBILITY = 1e-8
# The log of less than that: exp of anything lower is as small, and many times slower where it is a subnormal.
_MIN_LOG_RESPONSIBILITY = -30.0
_CHUNK_BYTES = 4 << 20
_RELATIVE_ROUNDING = 1e-7
_BLOCKED_PRODUCT_COLUMNS = 64
# In units of reg_covar, the ridge's greatest share of a column's variance. On KDD Cup 99, protocol B (one draw), one
# Gaussian has F1 .892 without a limit, .922 at 10^4, .950 at 10^2, and scikit-learn's on standardised columns .951.
_MAX_RIDGE_FACTOR = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Weights (K), means (K, D) and covariances (K, D, D) of a mixture, float64."""

    weights: Tensor
    means: Tensor
    covariances: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class CholeskyFactors:
    """What the E step needs of a mixture: lower Cholesky factors, their inverses, and the log constants."""

    lower: Tensor
    inverse: Tensor
    offset: Tensor
    log_constant: Tensor

    def mean_differences(self, means: Tensor) -> Tensor:
        """Return this mixture's means less others, (K, D)."""
        return (self.lower @ self.offset.unsqueeze(2)).squeeze(2) - means


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Sums over rows that add up over chunks and processes, in whitened coordinates of a mixture."""

    mass: Tensor
    first: Tensor
    second: Tensor
    log_likelihood: Tensor

    @staticmethod
    def zeros(k: int, d: int) -> "Moments":
        """Return the moments of no rows."""
        f64 = torch.float64
        return Moments(
            mass=torch.zeros(k, dtype=f64),
            first=torch.zeros(k, d, dtype=f64),
            second=torch.zeros(k, d, d, dtype=f64),
            log_likelihood=torch.zeros(2, dtype=f64),
        )

    def flatten(self) -> Tensor:
        """Return all sums as one vector, for one all_reduce."""
        return torch.cat([self.mass, self.first.flatten(), self.second.flatten(), self.log_likelihood])

    def unflatten(self, flat: Tensor) -> "Moments":
        """Return moments of this shape from a vector made by `flat`."""
        k, d = self.first.shape
        mass, first, second, log_likelihood = torch.split(flat, [k, k * d, k * d * d, 2])
        return Moments(
            mass=mass,
            first=first.view(k, d),
            second=second.view(k, d, d),
            log_likelihood=log_likelihood,
        )


def factorise(mixture: Mixture) -> CholeskyFactors:
    """Return the factors of a mixture with positive definite covariances."""
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
    """Return how many rows an E step should take at once to stay in the cache."""
    return max(256, min(8192, _CHUNK_BYTES // (4 * k * d)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PassFactors:
    """The factors in the precision of a pass: (D, K * D), their offsets (K * D), and the constants (K, 1)."""

    product: Tensor
    offset: Tensor
    log_constant: Tensor


def cast_factors(factors: CholeskyFactors, dtype: torch.dtype) -> PassFactors:
    """Return the factors as one matrix for the E step."""
    k, d = factors.offset.shape
    return PassFactors(
        product=factors.inverse.reshape(k * d, d).to(dtype).T,
        offset=factors.offset.neg().flatten().to(dtype),
        log_constant=factors.log_constant.unsqueeze(1).to(dtype),
    )


def whiten(z: Tensor, prepared: PassFactors) -> tuple[Tensor, Tensor]:
    """Return v = L_k^-1 (z - mu_k) as (n, K, D), and log(phi_k N(z | k)) as (K, n)."""
    n, d = z.shape
    v = torch.addmm(prepared.offset, z, prepared.product).view(n, -1, d)
    return v, prepared.log_constant - 0.5 * v.square().sum(2).T


def accumulate_moments(z: Tensor, prepared: PassFactors, weights: Tensor | None, total: Moments) -> None:
    """Add the moments of the rows `z` to `total` (E step).

    Args:
        z: Rows in the precision of the pass.
        prepared: Of the present mixture.
        weights: One weight a row, or None.
        total: Sums that grow in place.
    """
    v, log_joint = whiten(z, prepared)
    highest = log_joint.amax(0)
    share = log_joint.sub_(highest).clamp_min_(_MIN_LOG_RESPONSIBILITY).exp_()
    sums = share.sum(0)
    log_likelihood = highest + sums.log()
    share /= sums
    if weights is not None:
        share *= weights
    _add_products(v, share, total)
    wide = log_likelihood.double()
    total.log_likelihood[0] += wide.sum() if weights is None else wide @ weights.double()
    total.log_likelihood[1] += len(z) if weights is None else weights.double().sum()


def _add_products(v: Tensor, share: Tensor, total: Moments) -> None:
    """Add the mass and the first and second moments of the whitened rows, weighted by `share`.

    Rows that are not a component's are left out of its product: most events belong to one or two
    components, and the product costs D^2 a row.
    """
    for component, weight in enumerate(share):
        own = (weight >= NEGLIGIBLE_RESPONSIBILITY).nonzero().squeeze(1)
        w = weight.index_select(0, own)
        part = v[:, component].index_select(0, own)
        total.mass[component] += w.sum(dtype=torch.float64)
        root = w.sqrt_()
        part *= root.unsqueeze(1)
        total.first[component] += part.T @ root
        _add_square(part, total.second[component])


def _add_square(part: Tensor, total: Tensor) -> None:
    """Add A^T A to the total; with many columns by halves, one of which need not be computed."""
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
    """Return the mixture that fits the moments best, without any shrinkage (M step)."""
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
    """Return covariances of which none is negative in any direction.

    Rows that lie far closer together than the mixture before them thought, as after strange ones are left
    out, have variances below the rounding of their sums. Such a direction gets what that rounding is; the next
    pass measures it in coordinates of its own size.
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
    """Return by how much a new mixture raises the mean log-likelihood were each row's shares to stay as they are.

    This is the change of Dempster, Laird and Rubin's Q, from the moments alone. The log-likelihood itself rises
    by at least that, and near the maximum by at most twice that.
    """
    turn = after.inverse @ before.lower
    shift = (after.inverse @ before.mean_differences(mixture.means).unsqueeze(2)).squeeze(2)
    turned = (turn @ moments.first.unsqueeze(2)).squeeze(2)
    squares = ((turn @ moments.second) * turn).sum() - moments.second.diagonal(dim1=1, dim2=2).sum()
    squares += 2 * (shift * turned).sum() + moments.mass @ shift.square().sum(1)
    constants = moments.mass @ (after.log_constant - before.log_constant)
    return float((constants - 0.5 * squares) / moments.mass.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrinkage:
    """What keeps covariances sane: made-up rows of two kinds, and a ridge (D).

    Attributes:
        rows: How many vary as `target` says, all events together.
        alike: How many vary as the components do on average.
        target: The covariance of all events.
        ridge: Added to each column's variance.
    """

    prior_rows: float
    pooled_rows: float
    target: Tensor
    ridge: Tensor


def shrink_covariances(mixture: Mixture, mass: Tensor, kind: CovarianceType, shrinkage: Shrinkage) -> Mixture:
    """Return the mixture with covariances of the wanted form that are safely positive definite.

    The rule: every component is given `alike` made-up rows that vary as the components do on average (as in
    Friedman's regularised discriminant analysis) and `rows` that vary as the events as a whole do, then the
    columns' ridge, and a part in 10^7 of its own variance that keeps the factors' rounding harmless, are
    added to its diagonal. The made-up rows stand for what a component of so many rows may not have seen
    yet: they keep it from being certain, and being full covariances they widen no direction that is
    narrow everywhere. The ridge keeps directions without any variance finite.
    """
    cov, alike, added = mixture.covariances, shrinkage.pooled_rows, shrinkage.prior_rows
    rows = mass.view(-1, 1, 1)
    if kind == "tied" or alike > 0:
        average = torch.einsum("k,kij->ij", mixture.weights, cov).expand_as(cov)
        if kind == "tied":
            rows, cov, alike = mass.sum().expand_as(rows), average, 0.0
        cov = (rows * cov + alike * average) / (rows + alike)
    if added > 0:
        cov = ((rows + alike) * cov + added * shrinkage.target) / (rows + alike + added)
    if kind in ("diag", "spherical"):
        cov = torch.diag_embed(cov.diagonal(dim1=1, dim2=2))
    variance = cov.diagonal(dim1=1, dim2=2).clamp_min(0.0)
    cov = cov + torch.diag_embed(shrinkage.ridge + _RELATIVE_ROUNDING * variance)
    if kind == "spherical":
        level = cov.diagonal(dim1=1, dim2=2).mean(1)
        cov = level.view(-1, 1, 1) * torch.eye(cov.shape[1], dtype=torch.float64)
    return Mixture(weights=mixture.weights, means=mixture.means, covariances=cov)


def relative_ridge(reg: float, scale: Tensor, reach: Tensor) -> Tensor:
    """Return what is added to the variance of each standardised column.

    In the columns' own units this is scikit-learn's `reg_covar`, but never more than reg_covar times the
    square of the column's reach (so that a column of size 1e-8 is not drowned) nor than a hundred times
    reg_covar of its variance (a column of a few large values varies far less than it reaches), and never less
    than a hundredth of reg_covar times its variance (so that one of size 1e8 is not left singular).
    """
    least = torch.full_like(scale, 0.01 * reg)
    most = torch.minimum(reg * (reach / scale).square(), torch.full_like(scale, _MAX_RIDGE_FACTOR * reg))
    return torch.maximum(torch.minimum(reg / scale.square(), most), least)


def keep_components(mixture: Mixture, alive: Tensor) -> Mixture:
    """Return the mixture of the components marked in `alive`, weights summing to one again."""
    weights = mixture.weights[alive]
    return Mixture(
        weights=weights / weights.sum(),
        means=mixture.means[alive],
        covariances=mixture.covariances[alive],
    )


def rounding_amplification(factors: CholeskyFactors) -> float:
    """Return by how much the factors can enlarge a rounding error of a standardised row, in deviations."""
    return float(factors.inverse.abs().sum(2).max())
