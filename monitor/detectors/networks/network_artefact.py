"""Networks in an artefact: the arrays of their state, and no executable code."""

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
    """Return the state of the networks as host arrays; each name has the prefix `net.`."""
    return {_PREFIX + name: value.detach().cpu().numpy() for name, value in nets.state_dict().items()}


def load_state(nets: nn.Module, stored: Artefact) -> None:
    """Load the stored state into networks of the same shape.

    Raises:
        ModelError: The networks differ in layers, shapes or data types from those that were saved.
    """
    stored_names = {name.removeprefix(_PREFIX) for name in stored.tensors if name.startswith(_PREFIX)}
    required = nets.state_dict()
    if stored_names != set(required):
        differing = sorted(stored_names ^ set(required))[:3]
        raise ModelError(
            f"the networks passed do not match the {stored.kind} model's: {', '.join(differing)} exists on one side "
            "only; pass modules with the same layers as at the fit"
        )
    state = {
        name: torch.from_numpy(np.array(stored.tensor(_PREFIX + name, *value.shape)))
        for name, value in required.items()
    }
    for name, value in required.items():
        if state[name].is_floating_point() != value.is_floating_point():
            raise ModelError(
                f"the {stored.kind} model's array {_PREFIX + name!r} holds {state[name].dtype}; fit it again"
            )
    nets.load_state_dict({name: given.to(required[name]) for name, given in state.items()})


def check_given_networks(stored: Artefact, modules: Mapping[str, Any], owner: str) -> None:
    """Check that the networks passed at loading are those passed at fitting.

    Raises:
        ModelError: A network is missing or was not passed at fitting; the message names it.
    """
    given = stored.settings.get("given")
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise ModelError(f"the {stored.kind} model's list of user networks is missing or damaged; fit it again")
    missing = [name for name in given if modules.get(name) is None]
    if missing:
        arguments = ", ".join(f"{name}=..." for name in missing)
        raise ModelError(
            f"{owner}: this model was fitted with user-defined {', '.join(missing)}, whose code is not in the "
            f"file; pass the same again: {owner}.load(path, {arguments})"
        )
    extra = [name for name, module in modules.items() if module is not None and name not in given]
    if extra:
        raise ModelError(
            f"{owner}: this model was fitted with the default {', '.join(extra)}, which the file contains; "
            "load it without them"
        )


def check_network_sizes(stored: Artefact, latent_dim: int, n_gmm: int) -> None:
    """Check that default networks of these sizes have no more parameters than the artefact has numbers.

    The check runs before any network is allocated, so that forged settings cannot exhaust the memory.

    Args:
        stored: The artefact.
        latent_dim: The width of the latent in its settings.
        n_gmm: The number of components in its settings.

    Raises:
        ModelError: The settings require larger networks.
    """
    n_stored = sum(array.size for array in stored.tensors.values())
    widths = hidden_widths(stored.n_features)
    given = stored.settings.get("given")
    has_both = isinstance(given, list) and "encoder_net" in given and "decoder_net" in given
    layer_sizes = (latent_dim,) if has_both else (stored.n_features * widths[0], latent_dim * widths[2])
    if max(*layer_sizes, n_gmm) > n_stored:
        raise ModelError(
            f"the {stored.kind} model's settings require networks larger than the {n_stored} numbers in the file; "
            "fit it again"
        )


def read_settings(stored: Artefact, wanted: Iterable[str]) -> dict[str, Any]:
    """Return the named settings of the artefact.

    Raises:
        ModelError: A setting is missing.
    """
    missing = [name for name in wanted if name not in stored.settings]
    if missing:
        raise ModelError(f"the {stored.kind} model's settings lack {', '.join(missing)}; fit it again")
    return {name: stored.settings[name] for name in wanted}


def read_shape(stored: Artefact, value: Any) -> tuple[int, ...]:
    """Return the shape of an event.

    Raises:
        ModelError: The shape does not have as many elements as the model has features.
    """
    sizes = value if isinstance(value, list) else []
    valid = bool(sizes) and all(isinstance(size, int) and size > 0 for size in sizes)
    if not valid or int(np.prod(sizes, dtype=object)) != stored.n_features:
        raise ModelError(f"the {stored.kind} model's event shape does not match its number of features; fit it again")
    return tuple(sizes)
