"""Detectors: the mean energy and the regulariser of a batch under the mixture that the batch itself gives.

The same numbers as `gmm_energy(z, *gmm_params(z, gamma))`, whose gradient a training step asks for: worked
out by hand, because with batches of 64 rows a step is bound by the number of operations, and this has a
third of what automatic differentiation records.
"""

from typing import Any, cast

import torch
from torch import Tensor

from monitor.detectors.gmm_functions import LOG_2PI, TINY_VARIANCE, cholesky_with_ridge


def mixture_loss(z: Tensor, gamma: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean energy, the sum of inverse variances and the weights (without gradient).

    Meant for batches: it holds a float64 array of n x K x D. Components without any responsibility take
    no part and get no gradient.

    Raises:
        ModelError: NaN or infinity among `z` or `gamma`.
    """
    result = _MixtureLoss.apply(z, gamma, eps)
    return cast("tuple[Tensor, Tensor, Tensor]", result)


class _MixtureLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, gamma: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows, g = z.double(), gamma.double()
        n, D = rows.shape
        mass = g.sum(0)
        live = mass > 0
        s = mass.where(live, torch.ones_like(mass))
        centred = rows - rows.mean(0)
        share = g / s
        d = centred[None] - (share.mT @ centred)[:, None]  # (K, n, D)
        weighted = d * share.mT[:, :, None]
        cov = weighted.mT @ d
        L = cholesky_with_ridge(cov, eps)
        P = torch.cholesky_inverse(L)
        w = d @ P
        log_det = 2.0 * L.diagonal(dim1=1, dim2=2).log().sum(1)
        joint = (s / n).log() - 0.5 * (D * LOG_2PI + log_det)
        joint = joint.where(live, torch.full_like(joint, -torch.inf))
        log_joint = joint[:, None] - 0.5 * (w * d).sum(2)
        log_density = torch.logsumexp(log_joint, dim=0)
        variances = cov.diagonal(dim1=1, dim2=2)
        inverse = 1.0 / variances.clamp_min(TINY_VARIANCE) * live[:, None]
        ctx.save_for_backward(s, live, share, d, w, P, cov, log_joint, log_density, inverse)
        ctx.dtypes = (z.dtype, gamma.dtype)
        phi = mass / n
        ctx.mark_non_differentiable(phi)
        return (-log_density.mean()).to(z.dtype), inverse.sum().to(z.dtype), phi

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        s, live, share, d, w, P, cov, log_joint, log_density, inverse = ctx.saved_tensors
        of_energy, of_inverse = upstream[0].double(), upstream[1].double()
        n = d.shape[1]
        rho = (of_energy / n) * (log_joint - log_density).exp()  # (K, n): the energy's pull on each distance
        R = rho.sum(1)
        pulled = rho[:, :, None] * w
        of_cov = 0.5 * (R[:, None, None] * P - pulled.mT @ w)
        slope = inverse.square().where(inverse < 1.0 / TINY_VARIANCE, torch.zeros_like(inverse))
        of_cov = of_cov - torch.diag_embed(of_inverse * slope)
        of_mean = -pulled.sum(1)
        turned = d @ of_cov
        of_z = (pulled + share.mT[:, :, None] * (2.0 * turned + of_mean[:, None])).sum(0)
        level = (of_cov * cov).sum((1, 2)) + R
        of_gamma = (((turned + of_mean[:, None]) * d).sum(2) - level[:, None]) * (live / s)[:, None]
        return of_z.to(ctx.dtypes[0]), of_gamma.mT.to(ctx.dtypes[1]), None
