"""Networks of an autoencoding mixture: encoder, decoder, density network, and their forward pass."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from config.errors import ModelError

ReconFeatures: TypeAlias = Callable[[Tensor, Tensor], Tensor]

MAX_DISTANCE = 100.0  # upper bound of the relative distance: beyond it reconstructions are equally wrong
_LOG_VARIANCE_RANGE = (-30.0, 20.0)  # outside, exp() underflows below any useful variance or overflows
_PROBABILITY_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardResult:
    """Result of a forward pass: reconstruction, mixture input `z`, responsibilities `gamma`.

    `mean` and `log_variance` of the latent are None without variational heads.
    """

    reconstruction: Tensor
    z: Tensor
    gamma: Tensor
    mean: Tensor | None = None
    log_variance: Tensor | None = None


def cosine_and_distance(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the negative cosine similarity and the relative Euclidean distance of each pair of rows, (n, 2)."""
    x, reconstruction = x.flatten(1), reconstruction.flatten(1)
    length, reconstruction_length = (torch.linalg.vector_norm(t, dim=1) for t in (x, reconstruction))
    cosine = (x * reconstruction).sum(1) / (length * reconstruction_length).clamp_min(1e-12)
    distance = torch.linalg.vector_norm(reconstruction - x, dim=1)
    relative = distance / (torch.minimum(length, reconstruction_length) + 1e-12)
    return torch.stack([-cosine, relative.clamp(0.0, MAX_DISTANCE)], dim=1)


class DensityNets(nn.Module):
    """Encoder, decoder and density network; with variational heads the latent is sampled."""

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
        """The width of the latent noise; 0 without variational heads."""
        return self.mean_head.out_features if self.mean_head is not None else 0

    def forward(self, x: Tensor, noise: Tensor | None = None) -> ForwardResult:
        """Run the networks on `x`; `noise`, (n, latent), is scaled by the latent deviation and added to the mean."""
        latent, log_variance = self.encode(x)
        if log_variance is None:
            return self.forward_from_latent(x, latent)
        sampled = latent if noise is None else latent + torch.exp(0.5 * log_variance) * noise
        return replace(self.forward_from_latent(x, sampled), mean=latent, log_variance=log_variance)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the latent and None; with variational heads, the latent mean and log variance."""
        code = self.encoder(x)
        if self.mean_head is None or self.log_variance_head is None:
            return code, None
        hidden = code.flatten(1)
        return self.mean_head(hidden), self.log_variance_head(hidden).clamp(*_LOG_VARIANCE_RANGE)

    def forward_from_latent(self, x: Tensor, latent: Tensor) -> ForwardResult:
        """Return reconstruction, mixture input and responsibilities for a given latent."""
        reconstruction, z = self.reconstruct(x, latent)
        output = self.density(z)
        gamma = torch.softmax(output, dim=1) if self.normalise else output
        return ForwardResult(reconstruction=reconstruction, z=z, gamma=gamma)

    def reconstruct(self, x: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction and the mixture input: latent and reconstruction features side by side."""
        reconstruction = self.decoder(latent)
        return reconstruction, torch.cat([latent.flatten(1), self.recon_features(x, reconstruction)], dim=1)


def hidden_widths(n_features: int) -> tuple[int, int, int]:
    """Return the layer widths of the default encoder: 20, 15, 7 for few features; D/2, D/4, D/8 for many."""
    return (
        max(20, -(-n_features // 2)),
        max(15, -(-n_features // 4)),
        max(7, -(-n_features // 8)),
    )


def dense_layers(widths: Sequence[int], activation: str, *, last: bool) -> nn.Sequential:
    """Return a stack of linear layers with an activation after each; after the last only if `last`."""
    activations: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
    layers: list[nn.Module] = []
    for number, (n_in, n_out) in enumerate(pairwise(widths), start=1):
        layers.append(nn.Linear(n_in, n_out))
        if last or number < len(widths) - 1:
            layers.append(activations[activation]())
    return nn.Sequential(*layers)


def dense_encoder(shape: tuple[int, ...], widths: Sequence[int], activation: str, *, last: bool) -> nn.Sequential:
    """Return the default encoder for events of any shape."""
    return nn.Sequential(nn.Flatten(), *dense_layers((math.prod(shape), *widths), activation, last=last))


def dense_decoder(widths: Sequence[int], activation: str, shape: tuple[int, ...]) -> nn.Sequential:
    """Return the default decoder for events of any shape; the last layer is linear."""
    stack = dense_layers((*widths, math.prod(shape)), activation, last=False)
    return nn.Sequential(*stack, nn.Unflatten(1, shape)) if len(shape) > 1 else stack


def encode_sample(encoder: nn.Module, sample: Tensor) -> Tensor:
    """Return the encoder's output for `sample`.

    Raises:
        ModelError: The encoder does not accept events of this shape.
    """
    encoder.eval()
    with torch.no_grad():
        return _run_network(encoder, sample, "encoder_net", _describe_event_shape(sample))


def variational_heads(encoder: nn.Module, sample: Tensor, latent_dim: int) -> tuple[nn.Linear, nn.Linear]:
    """Return new layers from the encoder's output to the latent's mean and log variance."""
    width = encode_sample(encoder, sample).flatten(1).shape[1]
    return nn.Linear(width, latent_dim), nn.Linear(width, latent_dim)


def mixture_input_width(sample: Tensor, latent: int, recon_features: ReconFeatures) -> int:
    """Return the number of columns of the mixture input: latent plus reconstruction features.

    Raises:
        ModelError: `recon_features` does not return one row for each event.
    """
    try:
        features: Any = recon_features(sample, sample)
    except (RuntimeError, ValueError, IndexError, TypeError) as reason:
        description = f"events and reconstructions of shape {tuple(sample.shape[1:])}"
        raise ModelError(f"recon_features does not accept {description}: {_first_line(reason)}") from reason
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(sample):
        raise ModelError("recon_features must return a tensor of shape (events, columns)")
    return latent + features.shape[1]


def check_networks(nets: DensityNets, rows: Tensor, n_gmm: int | None) -> tuple[int, int]:
    """Run a few rows through the networks; return the width of the mixture input and the number of components.

    A density network that ends in its own softmax is detected, so that no second softmax is applied.

    Raises:
        ModelError: A network does not accept the previous network's output, or returns the wrong width.
    """
    nets.eval()
    with torch.no_grad():
        latent = _run_network(nets.encoder, rows, "encoder_net", _describe_event_shape(rows))
        if nets.mean_head is not None:
            latent = _run_network(nets.mean_head, latent.flatten(1), "the latent layer", "the output of encoder_net")
        reconstruction = _run_network(
            nets.decoder, latent, "decoder_net", f"a latent of shape {tuple(latent.shape[1:])}"
        )
        if reconstruction.shape != rows.shape:
            raise ModelError(
                f"decoder_net returns events of shape {tuple(reconstruction.shape[1:])} and must return "
                f"{tuple(rows.shape[1:])}, the shape of the events; change its last layer"
            )
        z = torch.cat([latent.flatten(1), nets.recon_features(rows, reconstruction)], dim=1)
        description = f"{z.shape[1]} columns, the latent and the features of the reconstruction"
        output = _run_network(nets.density, z, "gmm_density_net", description)
    if output.ndim != 2 or output.shape[1] != (output.shape[1] if n_gmm is None else n_gmm):
        raise ModelError(
            f"gmm_density_net returns shape {tuple(output.shape[1:])} per event and must return n_gmm={n_gmm} "
            "numbers; change its last layer or n_gmm"
        )
    near_one = (output.sum(1) - 1.0).abs() <= _PROBABILITY_SUM_TOLERANCE
    nets.normalise = not (output.shape[1] > 1 and bool((output >= 0).all()) and bool(near_one.all()))
    return z.shape[1], output.shape[1]


def _describe_event_shape(rows: Tensor) -> str:
    return f"events of shape {tuple(rows.shape[1:])}"


def _run_network(module: nn.Module, inputs: Tensor, name: str, description: str) -> Tensor:
    try:
        result: Any = module(inputs)
    except (RuntimeError, ValueError, IndexError, TypeError) as reason:
        raise ModelError(f"{name} does not accept {description}: {_first_line(reason)}") from reason
    if not isinstance(result, Tensor) or len(result) != len(inputs):
        raise ModelError(f"{name} must return one tensor with a row for each event")
    return result


def _first_line(reason: Exception) -> str:
    return next(iter(str(reason).splitlines()), type(reason).__name__)
