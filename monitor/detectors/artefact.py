"""Detectors: the file form of a fitted model, safetensors with one JSON document in its metadata.

Nothing in it can run code. The checksum covers every byte of the file, so any damage is found before a
number is used; what is read is bounded by the file's size. Format 1 is what the golden file in the tests
holds, and stays readable.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
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
from monitor.statistics.training_profile import N_BINS, FeatureProfile

FORMAT = 1
MAX_HEADER_BYTES = 4 << 20
_MAX_VALUE = 1e150  # the square of more has no number in float64
_METADATA_KEY = "outrider"
_REFERENCE_KEY = "reference_energies"
_PROFILE_PREFIX = "profile."
_PROFILE_FIELDS = ("edges", "centre", "deviation", "rank_deviation", "spread_deviation")
_CHECKSUM_PLACEHOLDER = "0" * 64
_CHECKSUM_MARKER = b'{\\"checksum\\":\\"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A fitted model as plain values: what it is, how it was fitted, and its arrays."""

    kind: str
    n_features: int
    feature_names: tuple[str, ...] | None
    tensors: Mapping[str, NDArray[Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    reference_energies: NDArray[np.float32] | None = None
    profile: FeatureProfile | None = None
    transforms: Sequence[Mapping[str, Any]] = ()

    def tensor(self, name: str, *shape: int | None) -> NDArray[Any]:
        """Return the finite array `name` after checking its shape; None in `shape` fits any size.

        Raises:
            ModelError: it is not there, has another shape, or holds NaN or infinity.
        """
        array = self.tensors.get(name)
        if array is None:
            raise ModelError(f"the {self.kind} model holds no array {name!r}; it was not written by Outrider")
        fits = array.ndim == len(shape) and all(
            want is None or want == have for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ModelError(f"the {self.kind} model's array {name!r} has shape {array.shape}, expected ({wanted})")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(f"the {self.kind} model's array {name!r} holds NaN or infinity; fit the model again")
        return array

    def float64_tensor(self, name: str, *shape: int | None) -> NDArray[np.float64]:
        """Return the array `name` of that shape as float64 whose squares and sums have numbers.

        Raises:
            ModelError: as `tensor` does, and for integers and numbers beyond 1e150.
        """
        array = self.tensor(name, *shape)
        wide: NDArray[np.float64] = array.astype(np.float64)
        if array.dtype.kind != "f" or (wide.size and max(wide.max(), -wide.min()) > _MAX_VALUE):
            raise ModelError(f"the {self.kind} model's array {name!r} holds unusable numbers; fit the model again")
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
    """The safetensors header as far as this module reads it; the library checks the rest."""

    metadata: dict[str, str] = msgspec.field(name="__metadata__", default_factory=dict)


def to_bytes(artefact: Artefact) -> bytes:
    """Return the artefact as the bytes of a safetensors file; equal artefacts give equal bytes."""
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
        transforms=[dict(step) for step in artefact.transforms],
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
    """Return a number of numpy's as one of Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise ModelError(f"a model cannot be stored with {value!r} among its settings; set a number, a text or None there")


def from_bytes(data: bytes, *, kind: str | None = None, where: str = "the model") -> Artefact:
    """Read an artefact, refusing anything damaged, foreign or of another kind.

    Args:
        data: The whole file.
        kind: The kind that the caller can use; None takes any.
        where: What the data is called in messages (a path, a row of a table).

    Raises:
        ModelError: whatever is wrong with it.
    """
    header = _read_header(data, where)
    if header.format != FORMAT:
        raise ModelError(
            f"{where} has format {header.format} and this Outrider reads format {FORMAT}; upgrade Outrider"
        )
    if kind is not None and header.kind != kind:
        raise ModelError(f"{where} is a {header.kind} model, not a {kind} model")
    if header.transforms:
        raise ModelError(f"{where} has column transforms that this Outrider does not know; upgrade Outrider")
    names = header.feature_names
    if header.n_features < 1 or (names is not None and len(names) != header.n_features):
        raise ModelError(f"{where} contradicts itself about its features; fit the model again")
    try:
        tensors: dict[str, NDArray[Any]] = {n: a.copy() for n, a in load_tensors(data).items()}
    except (SafetensorError, ValueError, KeyError, OverflowError) as reason:
        raise ModelError(f"{where} is damaged: {reason}. Copy it again or fit the model again") from reason
    return Artefact(
        kind=header.kind,
        n_features=header.n_features,
        feature_names=None if names is None else tuple(names),
        settings=header.settings,
        training=header.training,
        reference_energies=_check_reference_energies(tensors.pop(_REFERENCE_KEY, None), where),
        profile=_pop_profile(tensors, header.n_features, where),
        tensors=tensors,
    )


def save(artefact: Artefact, path: str | os.PathLike[str]) -> None:
    """Write the artefact to `path` at once: a reader sees the old file or the whole new one."""
    write_bytes(to_bytes(artefact), path)


def write_bytes(data: bytes, path: str | os.PathLike[str]) -> None:
    """Replace `path` by `data` in one step."""
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
    except OSError as reason:
        raise ModelError(
            f"cannot write the model to {target}: {reason.strerror or reason}; "
            "choose a directory that exists and is writable"
        ) from reason


def load(path: str | os.PathLike[str], *, kind: str | None = None) -> Artefact:
    """Read the artefact at `path`; see `from_bytes`."""
    return from_bytes(read_bytes(path), kind=kind, where=f"the model file {os.fspath(path)}")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of the regular file at `path`."""
    target = Path(path)
    try:
        if not target.is_file():
            raise ModelError(f"there is no model file {target}; check the path")
        return target.read_bytes()
    except OSError as reason:
        raise ModelError(f"cannot read the model file {target}: {reason.strerror or reason}") from reason


def read_checksum(data: bytes) -> str:
    """Return the checksum that the artefact carries, after verifying it."""
    return _read_header(data, "the model").checksum


def _read_header(data: bytes, where: str) -> _ArtefactHeader:
    # A header of 1,152 bytes also begins with 80 04, as pickles do; only a safetensors header goes on with a brace.
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05") and data[8:9] != b"{":
        raise ModelError(
            f"{where} is a pickle or a torch checkpoint, which could run code; Outrider reads only its own "
            "safetensors files: fit the model again and save it with .save()"
        )
    if len(data) < 8:
        raise ModelError(f"{where} is cut short ({len(data)} bytes); copy it again")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise ModelError(
            f"{where} is damaged or not an Outrider model: its header claims {length} bytes, "
            f"more than {MAX_HEADER_BYTES}"
        )
    if length > len(data) - 8:
        raise ModelError(f"{where} is cut short: the header claims {length} bytes of {len(data) - 8}; copy it again")
    try:
        file = msgspec.json.decode(data[8 : 8 + length], type=_SafetensorsHeader)
        document = file.metadata.get(_METADATA_KEY)
        if document is None:
            raise ModelError(f"{where} is a safetensors file, but not an Outrider model")
        header = msgspec.json.decode(document, type=_ArtefactHeader)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as reason:
        raise ModelError(f"{where} is damaged or not an Outrider model: {reason}") from reason
    _verify_checksum(data, header.checksum, where)
    return header


def _verify_checksum(data: bytes, claimed: str, where: str) -> None:
    start, end = _find_checksum(data)
    if start < 0 or data[start:end] != claimed.encode():
        raise ModelError(f"{where} is damaged: its checksum is not where it belongs; copy it again")
    digest = hashlib.sha256(data[:start])
    digest.update(_CHECKSUM_PLACEHOLDER.encode())
    digest.update(memoryview(data)[end:])
    if digest.hexdigest() != claimed:
        raise ModelError(f"{where} is damaged: the checksum does not match; copy it again or fit the model again")


def _find_checksum(data: bytes) -> tuple[int, int]:
    """Return where the 64 digits stand, at the head of the JSON document; (-1, -1) if nowhere."""
    found = data.find(_CHECKSUM_MARKER, 8, 8 + 256)
    if found < 0:
        return -1, -1
    start = found + len(_CHECKSUM_MARKER)
    return start, start + 64


def _check_reference_energies(array: NDArray[Any] | None, where: str) -> NDArray[np.float32] | None:
    if array is None:
        return None
    if array.ndim != 1 or array.dtype != np.float32 or not np.isfinite(array).all():
        raise ModelError(f"{where} has unusable reference energies; fit the model again")
    return np.sort(array)


def _pop_profile(tensors: dict[str, NDArray[Any]], d: int, where: str) -> FeatureProfile | None:
    """Take the training's profile out of the arrays; None in a file from before drift was watched."""
    found: dict[str, Any] = {name: tensors.pop(_PROFILE_PREFIX + name, None) for name in _PROFILE_FIELDS}
    if all(array is None for array in found.values()):
        return None
    kinds = {name: np.dtype(np.float32 if name == "edges" else np.float64) for name in _PROFILE_FIELDS}
    shapes = {name: (d, N_BINS - 1) if name == "edges" else (d,) for name in _PROFILE_FIELDS}
    usable: dict[str, NDArray[Any]] = {}
    for name, array in found.items():
        fits = array is not None and array.dtype == kinds[name] and array.shape == shapes[name]
        if array is None or not fits or not np.isfinite(array).all():
            raise ModelError(f"{where} has an unusable profile of its training ({name}); fit the model again")
        usable[name] = array
    return FeatureProfile(**usable)
