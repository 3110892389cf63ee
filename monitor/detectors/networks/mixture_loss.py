"""Mean energy and regulariser of a batch under the mixture estimated from the same batch.

The values equal `gmm_energy(z, *gmm_params(z, gamma))`. The gradient is computed by formulas, not by
automatic differentiation, which records three times as many operations. With batches of 64 rows the time of a training
step depends on this number.
"""

from typing import Any, cast

import torch
from torch import Tensor

from monitor.detectors.gmm_functions import LOG_2PI, TINY_VARIANCE, cholesky_with_ridge


def mixture_loss(z: Tensor, gamma: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean energy, the sum of inverse variances and the weights (K,) (without gradient).

    Meant for batches: it allocates a float64 array of n x K x D. Components without any responsibility are
    ignored and get no gradient.

    Args:
        z: Mixture input (n, D).
        gamma: Responsibilities (n, K).
        eps: The ridge added to the covariances.

    Raises:
        ModelError: `z` or `gamma` contains NaN or infinity.
    """
    result = _MixtureLoss.apply(z, gamma, eps)
    return cast("tuple[Tensor, Tensor, Tensor]", result)


class _MixtureLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, gamma: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows, g = z.double(), gamma.double()
        n, D = rows.shape
        mass = g.sum(0)
        has_mass = mass > 0
        safe_mass = mass.where(has_mass, torch.ones_like(mass))
        centred = rows - rows.mean(0)
        share = g / safe_mass
        d = centred[None] - (share.mT @ centred)[:, None]  # (K, n, D)
        weighted = d * share.mT[:, :, None]
        cov = weighted.mT @ d
        L = cholesky_with_ridge(cov, eps)
        P = torch.cholesky_inverse(L)
        w = d @ P
        log_det = 2.0 * L.diagonal(dim1=1, dim2=2).log().sum(1)
        joint = (safe_mass / n).log() - 0.5 * (D * LOG_2PI + log_det)
        joint = joint.where(has_mass, torch.full_like(joint, -torch.inf))
        log_joint = joint[:, None] - 0.5 * (w * d).sum(2)
        log_density = torch.logsumexp(log_joint, dim=0)
        variances = cov.diagonal(dim1=1, dim2=2)
        inverse = 1.0 / variances.clamp_min(TINY_VARIANCE) * has_mass[:, None]
        ctx.save_for_backward(safe_mass, has_mass, share, d, w, P, cov, log_joint, log_density, inverse)
        ctx.dtypes = (z.dtype, gamma.dtype)
        phi = mass / n
        ctx.mark_non_differentiable(phi)
        return (-log_density.mean()).to(z.dtype), inverse.sum().to(z.dtype), phi

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        safe_mass, has_mass, share, d, w, P, cov, log_joint, log_density, inverse = ctx.saved_tensors
        grad_energy, grad_inverse = upstream[0].double(), upstream[1].double()
        n = d.shape[1]
        # (K, n): the gradient of the mean energy with respect to each half squared distance.
        rho = (grad_energy / n) * (log_joint - log_density).exp()
        R = rho.sum(1)
        pulled = rho[:, :, None] * w
        grad_cov = 0.5 * (R[:, None, None] * P - pulled.mT @ w)
        slope = inverse.square().where(inverse < 1.0 / TINY_VARIANCE, torch.zeros_like(inverse))
        grad_cov = grad_cov - torch.diag_embed(grad_inverse * slope)
        grad_mean = -pulled.sum(1)
        d_grad_cov = d @ grad_cov
        grad_z = (pulled + share.mT[:, :, None] * (2.0 * d_grad_cov + grad_mean[:, None])).sum(0)
        level = (grad_cov * cov).sum((1, 2)) + R
        grad_gamma = (((d_grad_cov + grad_mean[:, None]) * d).sum(2) - level[:, None]) * (has_mass / safe_mass)[:, None]
        return grad_z.to(ctx.dtypes[0]), grad_gamma.mT.to(ctx.dtypes[1]), None
