"""Detectors: the three networks behind an autoencoding mixture, and what flows through them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from config.errors import ModelError

ReconFeatures: TypeAlias = Callable[[Tensor, Tensor], Tensor]

MAX_DISTANCE = 100.0  # the relative distance is clipped here: beyond, a reconstruction is simply wrong
_LOG_VARIANCE_RANGE = (-30.0, 20.0)  # outside, exp() loses the meaning of a variance or overflows
_PROBABILITY_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardResult:
    """What one pass gives: reconstruction, mixture input, responsibilities; heads if there are any."""

    reconstruction: Tensor
    z: Tensor
    gamma: Tensor
    mean: Tensor | None = None
    log_variance: Tensor | None = None


def cosine_and_distance(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the negative cosine similarity and the relative Euclidean distance of each pair of rows."""
    x, reconstruction = x.flatten(1), reconstruction.flatten(1)
    length, other = (torch.linalg.vector_norm(t, dim=1) for t in (x, reconstruction))
    cosine = (x * reconstruction).sum(1) / (length * other).clamp_min(1e-12)
    apart = torch.linalg.vector_norm(reconstruction - x, dim=1)
    relative = apart / (torch.minimum(length, other) + 1e-12)
    return torch.stack([-cosine, relative.clamp(0.0, MAX_DISTANCE)], dim=1)


class DensityNets(nn.Module):
    """Encoder, decoder and density network; with heads, the latent can be drawn."""

    def __init__(
        self,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        density: nn.Module,
        recon_features: ReconFeatures,
        heads: tuple[nn.Linear, nn.Linear] | None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.density = density
        self.mean_head: nn.Linear | None = heads[0] if heads is not None else None
        self.log_variance_head: nn.Linear | None = heads[1] if heads is not None else None
        self.recon_features = recon_features
        self.normalise = True

    @property
    def latent_width(self) -> int:
        """How many numbers of noise a pass takes; 0 without heads."""
        return self.mean_head.out_features if self.mean_head is not None else 0

    def forward(self, x: Tensor, noise: Tensor | None = None) -> ForwardResult:
        """Return the pass of `x`; `noise` of shape (n, latent) moves the latent by its own deviation."""
        latent, log_variance = self.encode(x)
        if log_variance is None:
            return self.forward_from_latent(x, latent)
        drawn = latent if noise is None else latent + torch.exp(0.5 * log_variance) * noise
        return replace(self.forward_from_latent(x, drawn), mean=latent, log_variance=log_variance)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the latent (its mean, with heads) and, with heads, the log variance."""
        code = self.encoder(x)
        if self.mean_head is None or self.log_variance_head is None:
            return code, None
        hidden = code.flatten(1)
        return self.mean_head(hidden), self.log_variance_head(hidden).clamp(*_LOG_VARIANCE_RANGE)

    def forward_from_latent(self, x: Tensor, latent: Tensor) -> ForwardResult:
        """Return reconstruction, mixture input and responsibilities from the latent on."""
        reconstruction, z = self.reconstruct(x, latent)
        raw = self.density(z)
        gamma = torch.softmax(raw, dim=1) if self.normalise else raw
        return ForwardResult(reconstruction=reconstruction, z=z, gamma=gamma)

    def reconstruct(self, x: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction and the mixture's input."""
        reconstruction = self.decoder(latent)
        return reconstruction, torch.cat([latent.flatten(1), self.recon_features(x, reconstruction)], dim=1)


def hidden_widths(n_features: int) -> tuple[int, int, int]:
    """Return the widths of the default encoder: 20, 15, 7 for few features, halving for many."""
    return (
        max(20, -(-n_features // 2)),
        max(15, -(-n_features // 4)),
        max(7, -(-n_features // 8)),
    )


def dense_layers(widths: Sequence[int], activation: str, *, last: bool) -> nn.Sequential:
    """Return a stack of linear layers; the activation follows each, the last only if `last`."""
    kinds: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths), start=1):
        layers.append(nn.Linear(before, after))
        if last or number < len(widths) - 1:
            layers.append(kinds[activation]())
    return nn.Sequential(*layers)


def dense_encoder(shape: tuple[int, ...], widths: Sequence[int], activation: str, *, last: bool) -> nn.Sequential:
    """Return the default encoder of events of any shape."""
    return nn.Sequential(nn.Flatten(), *dense_layers((math.prod(shape), *widths), activation, last=last))


def dense_decoder(widths: Sequence[int], activation: str, shape: tuple[int, ...]) -> nn.Sequential:
    """Return the default decoder to events of any shape; its last layer is linear."""
    stack = dense_layers((*widths, math.prod(shape)), activation, last=False)
    return nn.Sequential(*stack, nn.Unflatten(1, shape)) if len(shape) > 1 else stack


def encode_sample(encoder: nn.Module, sample: Tensor) -> Tensor:
    """Return what the encoder makes of `sample`.

    Raises:
        ModelError: It does not accept events like these.
    """
    encoder.eval()
    with torch.no_grad():
        return _run_network(encoder, sample, "encoder_net", _describe_event_shape(sample))


def variational_heads(encoder: nn.Module, sample: Tensor, latent_dim: int) -> tuple[nn.Linear, nn.Linear]:
    """Return fresh layers for the latent's mean and log variance, as wide as the encoder's output."""
    width = encode_sample(encoder, sample).flatten(1).shape[1]
    return nn.Linear(width, latent_dim), nn.Linear(width, latent_dim)


def mixture_input_width(sample: Tensor, latent: int, recon_features: ReconFeatures) -> int:
    """Return how many columns the mixture sees: the latent's and the reconstruction's.

    Raises:
        ModelError: `recon_features` returns something else than a row for each event.
    """
    try:
        features: Any = recon_features(sample, sample)
    except (RuntimeError, ValueError, IndexError, TypeError) as reason:
        what = f"events and reconstructions of shape {tuple(sample.shape[1:])}"
        raise ModelError(f"recon_features does not accept {what}: {_first_line(reason)}") from reason
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(sample):
        raise ModelError("recon_features must return a tensor of shape (events, columns)")
    return latent + features.shape[1]


def check_networks(nets: DensityNets, rows: Tensor, n_gmm: int | None) -> tuple[int, int]:
    """Run a few rows through the networks; return the width of the mixture's input and the components.

    A density network that ends in its own softmax is recognised and not normalised twice.

    Raises:
        ModelError: A network does not accept what comes before it, or returns the wrong width.
    """
    nets.eval()
    with torch.no_grad():
        latent = _run_network(nets.encoder, rows, "encoder_net", _describe_event_shape(rows))
        if nets.mean_head is not None:
            latent = _run_network(nets.mean_head, latent.flatten(1), "the latent layer", "the output of encoder_net")
        made = _run_network(nets.decoder, latent, "decoder_net", f"a latent of shape {tuple(latent.shape[1:])}")
        if made.shape != rows.shape:
            raise ModelError(
                f"decoder_net returns events of shape {tuple(made.shape[1:])} and must return "
                f"{tuple(rows.shape[1:])}, the shape of the events; change its last layer"
            )
        z = torch.cat([latent.flatten(1), nets.recon_features(rows, made)], dim=1)
        takes = f"{z.shape[1]} columns, the latent and the features of the reconstruction"
        raw = _run_network(nets.density, z, "gmm_density_net", takes)
    if raw.ndim != 2 or raw.shape[1] != (raw.shape[1] if n_gmm is None else n_gmm):
        raise ModelError(
            f"gmm_density_net returns shape {tuple(raw.shape[1:])} per event and must return n_gmm={n_gmm} "
            "numbers; change its last layer or n_gmm"
        )
    near_one = (raw.sum(1) - 1.0).abs() <= _PROBABILITY_SUM_TOLERANCE
    nets.normalise = not (raw.shape[1] > 1 and bool((raw >= 0).all()) and bool(near_one.all()))
    return z.shape[1], raw.shape[1]


def _describe_event_shape(rows: Tensor) -> str:
    return f"events of shape {tuple(rows.shape[1:])}"


def _run_network(module: nn.Module, given: Tensor, name: str, what: str) -> Tensor:
    try:
        result: Any = module(given)
    except (RuntimeError, ValueError, IndexError, TypeError) as reason:
        raise ModelError(f"{name} does not accept {what}: {_first_line(reason)}") from reason
    if not isinstance(result, Tensor) or len(result) != len(given):
        raise ModelError(f"{name} must return one tensor with a row for each event")
    return result


def _first_line(reason: Exception) -> str:
    return next(iter(str(reason).splitlines()), type(reason).__name__)
