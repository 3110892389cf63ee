"""Detectors: networks in an artefact, as the arrays of their state and nothing that could run."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from config.errors import ModelError
from monitor.detectors.artefact import Artefact
from monitor.detectors.networks.density_nets import hidden_widths

_PREFIX = "net."


def state_arrays(nets: nn.Module) -> dict[str, NDArray[Any]]:
    """Return the state of the networks as arrays, on the host, under names of their own."""
    return {_PREFIX + name: value.detach().cpu().numpy() for name, value in nets.state_dict().items()}


def load_state(nets: nn.Module, stored: Artefact) -> None:
    """Put the stored state into networks of the same shape.

    Raises:
        ModelError: The networks are shaped differently from those that were saved.
    """
    held = {name.removeprefix(_PREFIX) for name in stored.tensors if name.startswith(_PREFIX)}
    wanted = nets.state_dict()
    if held != set(wanted):
        odd = sorted(held ^ set(wanted))[:3]
        raise ModelError(
            f"the {stored.kind} model's networks are not the ones given: {', '.join(odd)} stands on one side "
            "only; give modules of the same layers as at the fit"
        )
    state = {
        name: torch.from_numpy(np.array(stored.tensor(_PREFIX + name, *value.shape))) for name, value in wanted.items()
    }
    for name, value in wanted.items():
        if state[name].is_floating_point() != value.is_floating_point():
            raise ModelError(
                f"the {stored.kind} model's array {_PREFIX + name!r} holds {state[name].dtype}; fit it again"
            )
    nets.load_state_dict({name: given.to(wanted[name]) for name, given in state.items()})


def check_given_networks(stored: Artefact, modules: Mapping[str, Any], owner: str) -> None:
    """Raise a ModelError that names the networks which the fit was given and the load was not."""
    given = stored.settings.get("given")
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise ModelError(f"the {stored.kind} model does not say which networks it was given; fit it again")
    missing = [name for name in given if modules.get(name) is None]
    if missing:
        arguments = ", ".join(f"{name}=..." for name in missing)
        raise ModelError(
            f"{owner}: this model was fitted with {', '.join(missing)} given, whose code is not in the "
            f"file; load it with the same: {owner}.load(path, {arguments})"
        )
    extra = [name for name, module in modules.items() if module is not None and name not in given]
    if extra:
        raise ModelError(
            f"{owner}: this model was fitted without {', '.join(extra)}; load it without, the default is in the file"
        )


def check_network_sizes(stored: Artefact, latent_dim: int, n_gmm: int) -> None:
    """Raise a ModelError where default networks of these sizes would hold more numbers than the file does.

    Args:
        stored: The artefact.
        latent_dim: The width of the latent that its settings name.
        n_gmm: The number of components that they name.
    """
    held = sum(array.size for array in stored.tensors.values())
    widths = hidden_widths(stored.n_features)
    given = stored.settings.get("given")
    both = isinstance(given, list) and "encoder_net" in given and "decoder_net" in given
    needed = (latent_dim,) if both else (stored.n_features * widths[0], latent_dim * widths[2])
    if max(*needed, n_gmm) > held:
        raise ModelError(
            f"the {stored.kind} model's settings ask for networks larger than the {held} numbers in the file; "
            "fit it again"
        )


def read_settings(stored: Artefact, wanted: Iterable[str]) -> dict[str, Any]:
    """Return the settings by name.

    Raises:
        ModelError: One is missing.
    """
    missing = [name for name in wanted if name not in stored.settings]
    if missing:
        raise ModelError(f"the {stored.kind} model's settings lack {', '.join(missing)}; fit it again")
    return {name: stored.settings[name] for name in wanted}


def read_shape(stored: Artefact, value: Any) -> tuple[int, ...]:
    """Return the shape of an event, which has to hold as many numbers as the model has features."""
    sizes = value if isinstance(value, list) else []
    valid = bool(sizes) and all(isinstance(size, int) and size > 0 for size in sizes)
    if not valid or int(np.prod(sizes, dtype=object)) != stored.n_features:
        raise ModelError(f"the {stored.kind} model contradicts itself about an event's shape; fit it again")
    return tuple(sizes)
