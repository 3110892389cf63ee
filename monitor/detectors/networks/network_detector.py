"""Base class of VAEGMM and AEGMM: fit, scores, prediction, explanation, serialisation."""

import copy
import math
import os
import time
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from config.errors import ModelError
from monitor.detectors import artefact as files
from monitor.detectors.artefact import Artefact
from monitor.detectors.derivation import Derivation
from monitor.detectors.explain.derived import sources_of
from monitor.detectors.explain.explanation import Explanation
from monitor.detectors.explain.typical import mean_typical_energy, usual_range
from monitor.detectors.inputs.arguments import check_device, check_int, check_number, make_not_fitted_error
from monitor.detectors.inputs.checks import FloatArray, check_events
from monitor.detectors.inputs.scaling import Scaling
from monitor.detectors.networks.density_nets import DensityNets, ReconFeatures, check_networks
from monitor.detectors.networks.latent_mixture import read_mixture
from monitor.detectors.networks.network_artefact import (
    check_given_networks,
    check_network_sizes,
    load_state,
    read_settings,
    read_shape,
    state_arrays,
)
from monitor.detectors.networks.network_scoring import (
    FittedNetworks,
    InputTransform,
    finalise_networks,
    make_input_transform,
    to_double_precision,
)
from monitor.detectors.networks.network_training import (
    Objective,
    OptimizerFactory,
    TrainingOptions,
    draw_latent_noise,
    train_networks,
)
from monitor.detectors.score.threads import single_torch_thread
from monitor.statistics.training_profile import FeatureProfile, build_feature_profile

_SINGLE_THREAD_OPERATIONS = 50_000_000  # multiplications per batch: below it more threads are slower
_MAX_TYPICAL_ROWS = 1000
_NETWORK_NAMES = ("encoder_net", "decoder_net", "gmm_density_net")


class NetworkDetector:
    """Autoencoder with a Gaussian mixture over its latent and reconstruction features.

    The energy of an event is the mixture's energy, -log p(z), at z = (latent, reconstruction features). For
    an event with a standardised length |x| above R, the largest length in training, D (|x| / R - 1) is added.
    The addition keeps far events ordered by distance: the reconstruction features are bounded, and a network
    may be constant far away from the training data.
    """

    kind: ClassVar[str]
    _stored_settings: ClassVar[tuple[str, ...]]
    _default_components: ClassVar[int]

    def __init__(
        self,
        *,
        threshold: float | None,
        encoder_net: nn.Module | None,
        decoder_net: nn.Module | None,
        gmm_density_net: nn.Module | None,
        n_gmm: int | None,
        latent_dim: int,
        recon_features: ReconFeatures | None,
        data_type: str | None,
        n_features: int | None,
        standardise: bool,
        random_state: int,
        device: str,
    ) -> None:
        self.threshold = None if threshold is None else self._check_number("threshold", threshold)
        self.encoder_net = encoder_net
        self.decoder_net = decoder_net
        self.gmm_density_net = gmm_density_net
        default = None if gmm_density_net is not None else self._default_components
        self.n_gmm = default if n_gmm is None else self._check_integer("n_gmm", n_gmm, 1)
        self.latent_dim = self._check_integer("latent_dim", latent_dim, 1)
        self.recon_features = recon_features
        self.data_type = data_type
        self._expected_features = None if n_features is None else self._check_integer("n_features", n_features, 1)
        self.standardise = bool(standardise)
        self.random_state = self._check_integer("random_state", random_state, 0)
        self.device = check_device(self._class_name, device)
        self.feature_names_: tuple[str, ...] | None = None
        self.reference_energies_: NDArray[np.float32] | None = None
        self.profile_: FeatureProfile | None = None
        self.derivation_: Derivation | None = None
        self.training_: dict[str, Any] = {}
        self._model: FittedNetworks | None = None
        given = {name: getattr(self, name) for name in _NETWORK_NAMES if getattr(self, name) is not None}
        for name, network in given.items():
            if not isinstance(network, nn.Module):
                raise ModelError(f"{self._class_name}: {name} must be a torch module, not {network!r}")
        if recon_features is not None and not callable(recon_features):
            raise ModelError(f"{self._class_name}: recon_features must be a function, not {recon_features!r}")
        self._given_states = {name: copy.deepcopy(network.state_dict()) for name, network in given.items()}

    def score(self, x: Any) -> FloatArray:
        """Return the score of each event, (n,), in nats; larger is more anomalous."""
        return self.energy(x)

    def energy(self, x: Any) -> FloatArray:
        """Return the energy of each event, (n,), in nats, without latent noise.

        The daemon compares these energies with the threshold.
        """
        return self._require_fitted().energies(self._check_events(x))

    def energies_and_responsibilities(self, x: Any) -> tuple[FloatArray, None]:
        """Return the energy of each event, (n,), and None: responsibilities are not monitored for networks."""
        return self.energy(x), None

    def infer_threshold(self, x: Any, threshold_perc: float = 95.0) -> float:
        """Set the threshold to the given percentile (0 to 100) of the scores of `x`, and return it, in nats."""
        percentile = self._check_number("threshold_perc", threshold_perc, 0.0, 100.0)
        self.threshold = float(np.percentile(self.score(x).astype(np.float64), percentile))
        return self.threshold

    def predict(
        self,
        x: Any,
        return_instance_score: bool = True,  # noqa: FBT001, FBT002 - the signature of outlier detection libraries
    ) -> dict[str, dict[str, Any]]:
        """Return a prediction dictionary: `{"meta": {...}, "data": {"is_outlier": ..., "instance_score": ...}}`.

        `is_outlier` holds 0 or 1 for each event; `instance_score` holds the scores, or None.

        Raises:
            ModelError: No threshold is set, or `x` does not match the model's features.
        """
        if self.threshold is None:
            raise ModelError(f"{self._class_name}: no threshold is set; call infer_threshold(x) or set .threshold")
        score = self.score(x)
        return {
            "meta": {"name": self._class_name, "detector_type": "outlier", "data_type": self.data_type},
            "data": {
                "is_outlier": (score > self._check_number("threshold", self.threshold)).astype(np.int64),
                "instance_score": score if return_instance_score else None,
            },
        }

    def explain(self, x: Any) -> Explanation:
        """Return the contribution of each feature to the energy of each event, from the reconstruction.

        `expected` is the reconstruction. `z` is the distance from it, in units of the root mean square
        distance of that feature in training. `cost` is the decrease in energy when the value is replaced by
        `expected`. The energy above the typical energy is divided among the features in proportion to their positive
        costs; these contributions sum to it.
        """
        model = self._require_fitted()
        return model.explain(
            self._check_events(x, squares=True),
            self.feature_names_ or tuple(f"x{j}" for j in range(self.n_features)),
            typical_energy=self._typical_energy(),
            usual=None if self.profile_ is None else usual_range(self.profile_),
            derived=sources_of(self.derivation_),
        )

    @property
    def n_features(self) -> int:
        """The number of features of an event; for images, the number of pixels."""
        return math.prod(self._require_fitted().input_transform.shape)

    @property
    def feature_means_(self) -> NDArray[np.float64]:
        """The mean of each feature in the training rows, (D,)."""
        return self._require_fitted().input_transform.scaling.centre

    def to_artefact(self) -> Artefact:
        """Return the fitted model as plain values.

        Of modules passed by the user only the state is included, not the code.
        """
        model = self._require_fitted()
        given = [name for name in (*_NETWORK_NAMES, "recon_features") if getattr(self, name) is not None]
        return Artefact(
            kind=self.kind,
            n_features=self.n_features,
            feature_names=self.feature_names_,
            tensors={
                **state_arrays(model.nets),
                **model.mixture.to_arrays(),
                "scaling.centre": model.input_transform.scaling.centre,
                "scaling.scale": model.input_transform.scaling.scale,
                "residuals": model.residuals,
            },
            settings={
                **{name: getattr(self, name) for name in self._stored_settings},
                "input_shape": list(model.input_transform.shape),
                "normalise": model.nets.normalise,
                "given": given,
            },
            training=self.training_,
            reference_energies=self.reference_energies_,
            profile=self.profile_,
            derivation=self.derivation_,
        )

    def to_bytes(self) -> bytes:
        """Serialise the model to the bytes of an artefact."""
        return files.to_bytes(self.to_artefact())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file atomically."""
        files.save(self.to_artefact(), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "cpu", **modules: Any) -> Self:
        """Load a model from a file.

        Networks and `recon_features` that were passed to the constructor must be passed again, by name.
        """
        return cls.from_artefact(files.load(path, kind=cls.kind), device=device, **modules)

    @classmethod
    def from_artefact(cls, stored: Artefact, *, device: str = "cpu", **modules: Any) -> Self:
        """Build the detector that the artefact describes.

        Args:
            stored: The artefact.
            device: A torch device.
            modules: The networks and `recon_features` that were passed to the constructor, by name.

        Raises:
            ModelError: The artefact is of another kind, a module is missing or has another shape, or the
                stored values are inconsistent.
        """
        if stored.kind != cls.kind:
            raise ModelError(f"a {stored.kind} model is not a {cls.kind} model; load it with load_detector")
        check_given_networks(stored, modules, cls.__name__)
        detector = cls(**read_settings(stored, cls._stored_settings), **modules, device=device)
        extra = read_settings(stored, ("input_shape", "normalise"))
        d = stored.n_features
        scaling = Scaling(
            centre=stored.float64_tensor("scaling.centre", d), scale=stored.float64_tensor("scaling.scale", d)
        )
        residuals = stored.float64_tensor("residuals", d)
        if not ((scaling.scale > 0).all() and (residuals > 0).all()):
            raise ModelError(f"the {cls.kind} model's scaling is inconsistent; fit it again")
        transform = InputTransform(scaling=scaling, shape=read_shape(stored, extra["input_shape"]), device=device)
        check_network_sizes(stored, detector.latent_dim, detector.n_gmm or 1)
        sample = torch.zeros(2, *transform.shape, device=device)
        nets = detector._initialise_networks(sample)
        load_state(nets, stored)
        width, components = check_networks(nets, sample, detector.n_gmm)
        nets.normalise = bool(extra["normalise"])
        mixture = read_mixture(stored, components, width)
        scoring_nets, dtype = to_double_precision(nets, sample)
        detector._model = FittedNetworks(
            nets=nets,
            scoring_nets=scoring_nets,
            dtype=dtype,
            keep_transposed=not detector._given_states,
            input_transform=transform,
            mixture=mixture,
            density=mixture.to_density(device),
            residuals=residuals,
        )
        detector.feature_names_ = stored.feature_names
        detector.reference_energies_ = stored.reference_energies
        detector.profile_ = stored.profile
        detector.derivation_ = stored.derivation
        detector.training_ = dict(stored.training)
        return detector

    def _make_networks(self, sample: Tensor) -> DensityNets:
        """Return the networks for events shaped like `sample`; default networks replace those not passed."""
        raise NotImplementedError

    def _fit_networks(
        self, x: Any, objective: Callable[[Tensor], Objective], options: TrainingOptions, reference_fraction: float
    ) -> Self:
        """Train the networks, estimate the mixture, and score the events held out as reference."""
        started_s = time.monotonic()
        if self._check_number("reference_fraction", reference_fraction, 0.0, 1.0) == 1:
            raise ModelError(
                f"{self._class_name}: reference_fraction must be below 1, or no events are left to train on"
            )
        shape = _event_shape(x)
        events = check_events(
            _flatten_events(x, shape),
            owner=self._class_name,
            n_features=self._expected_features,
            min_rows=2,
            squares=True,
        )
        shape = shape if len(shape) > 1 else (events.values.shape[1],)
        n_training = len(events.values) - round(reference_fraction * len(events.values))
        rows = events.values[:n_training]
        if n_training < max(2, self.n_gmm or 1):
            raise ModelError(
                f"{self._class_name}: {n_training} rows to train on are fewer than the n_gmm={self.n_gmm} components; "
                "give more rows"
            )
        transform = make_input_transform(rows, shape, self.device, standardise=self.standardise)
        inputs, radius = transform.transform_training_rows(rows)
        nets = self._initialise_networks(inputs[:2])
        self.n_gmm = check_networks(nets, inputs[:8], self.n_gmm)[1]
        with single_torch_thread(
            when=sum(p.numel() for p in nets.parameters()) * options.batch_size < _SINGLE_THREAD_OPERATIONS
        ):
            report = train_networks(nets, inputs, objective(inputs.flatten(1)), options)
            noise = draw_latent_noise(nets, inputs, self.random_state)
            self._model = finalise_networks(
                nets, transform, inputs, radius, noise, keep_transposed=not self._given_states
            )
        self.feature_names_ = events.names
        self.profile_ = build_feature_profile(rows)
        sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MAX_TYPICAL_ROWS)).astype(np.int64)]
        self.training_ = {
            "rows": n_training,
            "epochs": report.epochs,
            "best_epoch": report.best_epoch,
            "skipped_steps": report.skipped_steps,
            "stopped": report.stopped,
            "dead_components": int((self._model.mixture.weights <= 0).sum()),
            "batch_size": options.batch_size,
            "learning_rate": options.learning_rate,
            "typical_energy": mean_typical_energy(self._model.energies(sample)),
            "seconds": time.monotonic() - started_s,
        }
        reference = self._model.energies(events.values[n_training:]).astype(np.float32)
        self.reference_energies_ = np.sort(reference) if len(reference) else None
        return self

    def _typical_energy(self) -> float:
        """Return the energy of a typical training event; 0 for a stored model without it and without references."""
        stored = self.training_.get("typical_energy")
        if stored is not None:
            return self._check_number("typical_energy", stored)
        return 0.0 if self.reference_energies_ is None else mean_typical_energy(self.reference_energies_)

    def _initialise_networks(self, sample: Tensor) -> DensityNets:
        """Return the networks on the device. Networks passed by the user start from their state at construction."""
        for name, state in self._given_states.items():
            getattr(self, name).to("cpu").load_state_dict(state)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            return self._make_networks(sample.cpu()).to(self.device)

    def _check_events(self, x: Any, *, squares: bool = False) -> FloatArray:
        fitted_shape = self._require_fitted().input_transform.shape
        shape = _event_shape(x)
        if len(shape) > 1 and shape != fitted_shape:
            raise ModelError(
                f"{self._class_name}: got events of shape {shape}, but the model was fitted on {fitted_shape}"
            )
        rows = _flatten_events(x, shape)
        return check_events(
            rows, owner=self._class_name, n_features=math.prod(fitted_shape), names=self.feature_names_, squares=squares
        ).values

    def _require_fitted(self) -> FittedNetworks:
        if self._model is None:
            raise make_not_fitted_error(self._class_name)
        return self._model

    def _check_integer(self, name: str, value: object, least: int) -> int:
        return check_int(self._class_name, name, value, least)

    def _check_number(self, name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
        return check_number(self._class_name, name, value, low, high)

    def _check_optimizer(self, optimizer: OptimizerFactory | None) -> OptimizerFactory | None:
        if optimizer is not None and not callable(optimizer):
            raise ModelError(f"{self._class_name}: optimizer must be a function of the parameters, not {optimizer!r}")
        return optimizer

    @property
    def _class_name(self) -> str:
        return type(self).__name__


def _event_shape(x: Any) -> tuple[int, ...]:
    """Return the shape of one event; () if `x` is not an array."""
    return tuple(int(size) for size in getattr(x, "shape", ())[1:])


def _flatten_events(x: Any, shape: tuple[int, ...]) -> Any:
    """Flatten images into rows of pixels; return anything else unchanged."""
    return x.reshape(len(x), math.prod(shape)) if len(shape) > 1 else x
