"""File format of a fitted model: safetensors with one JSON document in the metadata.

The format cannot contain code. The checksum covers every byte of the file, so that damage is detected before a number
is used. Memory is bounded by the size of the file. The golden file in the tests has format 1, which stays readable.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from config.errors import ModelError
from monitor.detectors.derivation import Derivation
from monitor.statistics.training_profile import N_BINS, FeatureProfile

FORMAT = 1
MAX_HEADER_BYTES = 4 << 20
_MAX_VALUE = 1e150  # squares of larger numbers overflow float64
_METADATA_KEY = "outrider"
_REFERENCE_KEY = "reference_energies"
_PROFILE_PREFIX = "profile."
_PROFILE_FIELDS = ("edges", "centre", "deviation", "rank_deviation", "spread_deviation")
_CHECKSUM_PLACEHOLDER = "0" * 64
_CHECKSUM_MARKER = b'{\\"checksum\\":\\"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """Fitted model as plain values.

    Attributes:
        kind: The kind of the detector.
        n_features: The number of columns of the training events.
        feature_names: Their names, or None.
        tensors: The arrays of parameters by name.
        settings: The constructor arguments.
        training: The summary of the fit.
        reference_energies: Sorted out-of-fold energies of the training events, or None.
        profile: The training profile of each feature, or None.
        derivation: The derived features among the columns, or None.
    """

    kind: str
    n_features: int
    feature_names: tuple[str, ...] | None
    tensors: Mapping[str, NDArray[Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    reference_energies: NDArray[np.float32] | None = None
    profile: FeatureProfile | None = None
    derivation: Derivation | None = None

    def tensor(self, name: str, *shape: int | None) -> NDArray[Any]:
        """Return the finite array `name` after checking its shape; None in `shape` matches any size.

        Raises:
            ModelError: The array is missing, has another shape, or holds NaN or infinity.
        """
        array = self.tensors.get(name)
        if array is None:
            raise ModelError(f"the {self.kind} model holds no array {name!r}; it was not written by Outrider")
        matches = array.ndim == len(shape) and all(
            expected is None or expected == size for expected, size in zip(shape, array.shape, strict=True)
        )
        if not matches:
            expected_shape = ", ".join("any" if size is None else str(size) for size in shape)
            raise ModelError(
                f"the {self.kind} model's array {name!r} has shape {array.shape}, expected ({expected_shape})"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(f"the {self.kind} model's array {name!r} holds NaN or infinity; fit the model again")
        return array

    def float64_tensor(self, name: str, *shape: int | None) -> NDArray[np.float64]:
        """Return the float array `name` as float64, with values at most 1e150, so that squares do not overflow.

        Raises:
            ModelError: See `tensor`; also for an integer array, and for numbers beyond 1e150.
        """
        array = self.tensor(name, *shape)
        wide: NDArray[np.float64] = array.astype(np.float64)
        if array.dtype.kind != "f" or (wide.size and max(wide.max(), -wide.min()) > _MAX_VALUE):
            raise ModelError(
                f"the {self.kind} model's array {name!r} holds integers or numbers beyond {_MAX_VALUE:g}; "
                "fit the model again"
            )
        return wide


class _ArtefactHeader(msgspec.Struct, frozen=True, kw_only=True):
    checksum: str
    format: int
    kind: str
    n_features: int
    feature_names: list[str] | None
    settings: dict[str, Any]
    training: dict[str, Any]
    transforms: list[dict[str, Any]]


class _SafetensorsHeader(msgspec.Struct, frozen=True):
    """The metadata in the safetensors header; the safetensors library checks the other fields."""

    metadata: dict[str, str] = msgspec.field(name="__metadata__", default_factory=dict)


def to_bytes(artefact: Artefact) -> bytes:
    """Return the artefact as the bytes of a safetensors file; the bytes are deterministic.

    Raises:
        ModelError: The JSON document is larger than `MAX_HEADER_BYTES`, or a setting has no JSON form.
    """
    tensors = {name: np.asarray(array, order="C") for name, array in artefact.tensors.items()}
    if artefact.reference_energies is not None:
        tensors[_REFERENCE_KEY] = np.ascontiguousarray(artefact.reference_energies, dtype=np.float32)
    if artefact.profile is not None:
        tensors |= {
            _PROFILE_PREFIX + name: np.ascontiguousarray(getattr(artefact.profile, name)) for name in _PROFILE_FIELDS
        }
    header = _ArtefactHeader(
        checksum=_CHECKSUM_PLACEHOLDER,
        format=FORMAT,
        kind=artefact.kind,
        n_features=artefact.n_features,
        feature_names=None if artefact.feature_names is None else list(artefact.feature_names),
        settings=dict(artefact.settings),
        training=dict(artefact.training),
        transforms=[] if artefact.derivation is None else artefact.derivation.to_transforms(),
    )
    document = msgspec.json.encode(header, enc_hook=_to_builtin).decode()
    raw: bytes = save_tensors(tensors, {_METADATA_KEY: document})
    if int.from_bytes(raw[:8], "little") > MAX_HEADER_BYTES:
        raise ModelError(
            f"the {artefact.kind} model's description is larger than {MAX_HEADER_BYTES >> 20} MiB; "
            "shorten the feature names or the training summary"
        )
    start, end = _find_checksum(raw)
    digest = hashlib.sha256(raw).hexdigest().encode()
    return raw[:start] + digest + raw[end:]


def _to_builtin(value: object) -> Any:
    """Return a numpy scalar as a Python scalar."""
    if isinstance(value, np.generic):
        return value.item()
    raise ModelError(f"a model with {value!r} among its settings cannot be stored; use a number, a string or None")


def from_bytes(data: bytes, *, kind: str | None = None, where: str = "the model") -> Artefact:
    """Parse an artefact.

    Args:
        data: The content of the file.
        kind: The expected kind; None accepts every kind.
        where: The origin of the data for messages, such as a path or a row of a table.

    Raises:
        ModelError: The data is damaged, is not an Outrider model, or has another kind or a newer format.
    """
    header = _read_header(data, where)
    if header.format != FORMAT:
        raise ModelError(
            f"{where} has format {header.format} and this Outrider reads format {FORMAT}; upgrade Outrider"
        )
    if kind is not None and header.kind != kind:
        raise ModelError(f"{where} is a {header.kind} model, not a {kind} model")
    names = header.feature_names
    if header.n_features < 1 or (names is not None and len(names) != header.n_features):
        raise ModelError(f"{where} has an inconsistent number of features; fit the model again")
    derivation = Derivation.from_transforms(header.transforms, names, where)
    try:
        tensors: dict[str, NDArray[Any]] = {n: a.copy() for n, a in load_tensors(data).items()}
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise ModelError(f"{where} is damaged: {error}. Copy it again or fit the model again") from error
    return Artefact(
        kind=header.kind,
        n_features=header.n_features,
        feature_names=None if names is None else tuple(names),
        settings=header.settings,
        training=header.training,
        reference_energies=_check_reference_energies(tensors.pop(_REFERENCE_KEY, None), where),
        profile=_pop_profile(tensors, header.n_features, where),
        tensors=tensors,
        derivation=derivation,
    )


def save(artefact: Artefact, path: str | os.PathLike[str]) -> None:
    """Write the artefact to `path` atomically: a reader sees the old or the complete new file."""
    write_bytes(to_bytes(artefact), path)


def write_bytes(data: bytes, path: str | os.PathLike[str]) -> None:
    """Replace the content of `path` by `data` atomically.

    Raises:
        ModelError: The file cannot be written.
    """
    if not isinstance(path, str | os.PathLike):
        raise ModelError(f"a model is saved to a path, not to {path!r}")
    target = Path(path)
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).chmod(0o644)
        Path(file.name).replace(target)
    except OSError as error:
        raise ModelError(
            f"cannot write the model to {target}: {error.strerror or error}; "
            "choose a directory that exists and is writable"
        ) from error


def load(path: str | os.PathLike[str], *, kind: str | None = None) -> Artefact:
    """Read the artefact at `path`; errors as in `from_bytes`."""
    return from_bytes(read_bytes(path), kind=kind, where=f"the model file {os.fspath(path)}")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of the regular file at `path`.

    Raises:
        ModelError: There is no such file, or it cannot be read.
    """
    target = Path(path)
    try:
        if not target.is_file():
            raise ModelError(f"there is no model file {target}; check the path")
        return target.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model file {target}: {error.strerror or error}") from error


def read_checksum(data: bytes) -> str:
    """Return the verified checksum of an artefact, in hexadecimal digits."""
    return _read_header(data, "the model").checksum


def _read_header(data: bytes, where: str) -> _ArtefactHeader:
    # A header of 1,152 bytes begins with 80 04, as pickles do; a safetensors header has a brace at byte 8.
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05") and data[8:9] != b"{":
        raise ModelError(
            f"{where} is a pickle or a torch checkpoint, which can run code; Outrider reads only its own "
            "safetensors files: fit the model again and save it with .save()"
        )
    if len(data) < 8:
        raise ModelError(f"{where} is truncated ({len(data)} bytes); copy it again")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise ModelError(
            f"{where} is damaged or not an Outrider model: its header has {length} bytes, more than {MAX_HEADER_BYTES}"
        )
    if length > len(data) - 8:
        raise ModelError(
            f"{where} is truncated: the header has {length} bytes, but only {len(data) - 8} follow; copy it again"
        )
    try:
        file = msgspec.json.decode(data[8 : 8 + length], type=_SafetensorsHeader)
        document = file.metadata.get(_METADATA_KEY)
        if document is None:
            raise ModelError(f"{where} is a safetensors file, but not an Outrider model")
        header = msgspec.json.decode(document, type=_ArtefactHeader)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{where} is damaged or not an Outrider model: {error}") from error
    _verify_checksum(data, header.checksum, where)
    return header


def _verify_checksum(data: bytes, expected_digest: str, where: str) -> None:
    start, end = _find_checksum(data)
    if start < 0 or data[start:end] != expected_digest.encode():
        raise ModelError(f"{where} is damaged: its checksum is misplaced; copy it again")
    digest = hashlib.sha256(data[:start])
    digest.update(_CHECKSUM_PLACEHOLDER.encode())
    digest.update(memoryview(data)[end:])
    if digest.hexdigest() != expected_digest:
        raise ModelError(f"{where} is damaged: the checksum does not match; copy it again or fit the model again")


def _find_checksum(data: bytes) -> tuple[int, int]:
    """Return start and end of the 64 digits at the head of the JSON document; (-1, -1) if there are none."""
    position = data.find(_CHECKSUM_MARKER, 8, 8 + 256)
    if position < 0:
        return -1, -1
    start = position + len(_CHECKSUM_MARKER)
    return start, start + 64


def _check_reference_energies(array: NDArray[Any] | None, where: str) -> NDArray[np.float32] | None:
    if array is None:
        return None
    if array.ndim != 1 or array.dtype != np.float32 or not np.isfinite(array).all():
        raise ModelError(f"{where} has invalid reference energies; fit the model again")
    return np.sort(array)


def _pop_profile(tensors: dict[str, NDArray[Any]], d: int, where: str) -> FeatureProfile | None:
    """Remove the training profile from the arrays; None for files of versions without drift detection."""
    arrays: dict[str, Any] = {name: tensors.pop(_PROFILE_PREFIX + name, None) for name in _PROFILE_FIELDS}
    if all(array is None for array in arrays.values()):
        return None
    kinds = {name: (np.float32, np.float64) if name == "edges" else (np.float64,) for name in _PROFILE_FIELDS}
    shapes = {name: (d, N_BINS - 1) if name == "edges" else (d,) for name in _PROFILE_FIELDS}
    profile: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        matches = array is not None and array.dtype in kinds[name] and array.shape == shapes[name]
        if array is None or not matches or not np.isfinite(array).all():
            raise ModelError(f"{where} has an invalid training profile ({name}); fit the model again")
        profile[name] = array
    return FeatureProfile(**profile)
