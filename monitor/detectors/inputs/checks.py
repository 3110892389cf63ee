"""Validation of events, sample weights and labels.

Every detector accepts numpy arrays, torch tensors and data frames. This module converts them to one contiguous float
array, or raises a ModelError that names the invalid rows and columns.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.detectors.inputs.conversion import FloatArray, column_names, to_float_array, to_numpy

__all__ = ["CheckedEvents", "FloatArray", "check_events", "check_finite", "check_labels", "check_sample_weights"]

_MAX_SHOWN = 5
# The squares of larger numbers, or their sums, can overflow float64.
_MAX_VALUE = 1e150
_MAX_LABEL = (1 << 62) - 1
_FINITE_CHECK_ROWS = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedEvents:
    """Checked events: finite numbers, one row per event, and the column names if `x` had names."""

    values: FloatArray
    names: tuple[str, ...] | None


def check_events(
    x: object,
    *,
    owner: str,
    n_features: int | None = None,
    names: Sequence[str] | None = None,
    min_rows: int = 1,
    finite: bool = True,
    squares: bool = False,
) -> CheckedEvents:
    """Return `x` as contiguous float32 or float64 rows.

    float32 stays float32; every other type becomes float64. A contiguous float array is not copied.

    Args:
        x: A numpy array, a torch tensor, a data frame (pandas, polars) or nested lists of numbers.
        owner: The class name of the detector, for error messages.
        n_features: The number of columns of the training events; None before a fit.
        names: The column names of the training events. A frame must have the same names, in any order; its columns
            are reordered.
        min_rows: The minimum number of rows.
        finite: Reject NaN and infinity. The scoring path checks the energies instead.
        squares: Reject numbers beyond 1e150 too; a fit and an explanation square them.

    Raises:
        ModelError: `x` does not hold finite numbers in rows of the expected width.
    """
    found_names = column_names(x)
    expected = None if names is None else tuple(names)
    if found_names is not None:
        _check_names(found_names, expected, owner)
    values = to_float_array(x, owner, found_names)
    _check_shape(values, owner, n_features, min_rows)
    if found_names is not None and expected is not None and found_names != expected:
        values, found_names = _reorder_columns(values, found_names, expected), expected
    if finite:
        check_finite(values, owner=owner, names=found_names or names)
    if squares and values.dtype == np.float64:
        _check_magnitude(values, owner, found_names or names)
    return CheckedEvents(values=values, names=found_names)


def _check_magnitude(values: FloatArray, owner: str, names: Sequence[str] | None) -> None:
    if max(values.max(), -values.min()) <= _MAX_VALUE:
        return
    beyond = ~(np.abs(values) <= _MAX_VALUE)
    rows, columns = np.flatnonzero(beyond.any(axis=1)), np.flatnonzero(beyond.any(axis=0))
    shown_rows = _format_rows(rows[:_MAX_SHOWN].tolist(), len(rows))
    raise ModelError(
        f"{owner}: input X contains numbers beyond {_MAX_VALUE:g}, whose squares overflow float64 "
        f"(rows {shown_rows}; columns {_format_columns(columns.tolist(), names)}); "
        "change the unit of these columns, or drop the rows"
    )


def check_finite(values: FloatArray, *, owner: str, names: Sequence[str] | None = None, what: str = "input X") -> None:
    """Check that all values are finite.

    Args:
        values: The array, (n, D).
        owner: The class or function that takes the array, for the message.
        names: The column names, or None.
        what: The name of the array, for the message.

    Raises:
        ModelError: Some rows hold NaN or infinity; the message names rows and columns.
    """
    bad_rows: list[int] = []
    bad_columns: list[int] = []
    total = 0
    for start in range(0, len(values), _FINITE_CHECK_ROWS):
        finite = np.isfinite(values[start : start + _FINITE_CHECK_ROWS])
        if finite.all():
            continue
        rows = np.flatnonzero(~finite.all(axis=1))
        total += len(rows)
        bad_columns.extend(np.flatnonzero(~finite.all(axis=0)).tolist())
        if len(bad_rows) < _MAX_SHOWN:
            bad_rows.extend((rows + start)[: _MAX_SHOWN - len(bad_rows)].tolist())
    if not total:
        return
    part = values[bad_rows]
    kinds = " and ".join(
        kind for kind, is_present in (("NaN", np.isnan(part).any()), ("inf", np.isinf(part).any())) if is_present
    )
    raise ModelError(
        f"{owner}: {what} contains {kinds} in {total} of {len(values)} rows "
        f"(rows {_format_rows(bad_rows, total)}; columns {_format_columns(sorted(set(bad_columns)), names)}). "
        f"{owner} does not accept missing values encoded as NaN, nor infinity; drop these rows or fill them first"
    )


def check_sample_weights(weights: object, n: int, *, owner: str) -> NDArray[np.float64]:
    """Return one finite, non-negative weight per row, (n,).

    Raises:
        ModelError: The shape is another, a weight is negative or not finite, or all weights are zero.
    """
    array = np.asarray(to_numpy(weights))
    if array.dtype.kind not in "biuf" or array.shape != (n,):
        raise ModelError(
            f"{owner}: sample_weight must be {n} numbers, one per row; got shape {array.shape} of {array.dtype}"
        )
    result = array.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(result) & (result >= 0)))
    if len(bad):
        rows = _format_rows(bad[:_MAX_SHOWN].tolist(), len(bad))
        raise ModelError(f"{owner}: sample_weight must be finite and not negative; rows {rows} are not")
    with np.errstate(over="ignore"):
        total = result.sum()
    if not np.isfinite(total):
        raise ModelError(f"{owner}: the sum of sample_weight overflows float64; divide all weights by the largest")
    if not total > 0:
        raise ModelError(f"{owner}: every sample_weight is zero; give at least one row a positive weight")
    return result


def check_labels(labels: object, n: int, *, owner: str) -> NDArray[np.int64]:
    """Return one whole number per row, (n,); callers treat negative labels as unknown.

    Raises:
        ModelError: The labels are not n whole numbers.
    """
    array = np.asarray(to_numpy(labels))
    if array.shape != (n,):
        raise ModelError(
            f"{owner}: labels must be one whole number per row: {n} rows, but labels of shape {array.shape}"
        )
    if array.dtype.kind == "O" and all(isinstance(label, Integral) for label in array):
        array = np.array([min(max(int(label), -1), _MAX_LABEL + 1) for label in array])
    if array.dtype.kind == "f" and np.array_equal(array, np.floor(array)):
        array = np.clip(array, -1, _MAX_LABEL + 1.0).astype(np.int64)
    if array.dtype.kind not in "biu":
        raise ModelError(f"{owner}: labels must be whole numbers (negative = unknown); got {array.dtype}")
    if (array > _MAX_LABEL).any():
        raise ModelError(f"{owner}: labels must be at most {_MAX_LABEL}; number the classes from 0 on")
    return array.astype(np.int64)


def _check_names(found: tuple[str, ...], expected: tuple[str, ...] | None, owner: str) -> None:
    """Raise a ModelError for duplicate names, and for another set of names than the expected."""
    duplicated = [name for name, times in Counter(found).items() if times > 1]
    if duplicated:
        raise ModelError(
            f"{owner}: several columns have the name {_format_names(duplicated)}; rename them or keep one of each"
        )
    if expected is None:
        return
    present, expected_set = set(found), set(expected)
    missing = [name for name in expected if name not in present]
    extra = [name for name in found if name not in expected_set]
    parts = [f"missing: {_format_names(missing)}"] if missing else []
    if extra:
        parts.append(f"not in the training events: {_format_names(extra)}")
    if parts:
        raise ModelError(
            f"{owner}: the feature names should match those that were passed during fit. " + "; ".join(parts)
        )


def _reorder_columns(values: FloatArray, found: tuple[str, ...], expected: tuple[str, ...]) -> FloatArray:
    """Return the columns in the expected order of their names."""
    index = {name: column for column, name in enumerate(found)}
    return np.ascontiguousarray(values[:, [index[name] for name in expected]])


def _check_shape(values: FloatArray, owner: str, n_features: int | None, min_rows: int) -> None:
    if values.ndim != 2:
        hint = (
            "Reshape your data: x.reshape(1, -1) for a single event, x.reshape(-1, 1) for a single feature"
            if values.ndim < 2
            else "Flatten each event to one row"
        )
        raise ModelError(
            f"{owner}: expected a 2D array of shape (events, features), "
            f"got {values.ndim} dimension(s), shape {values.shape}. {hint}"
        )
    n, width = values.shape
    if width == 0:
        raise ModelError(f"0 feature(s) (shape={values.shape}) while a minimum of 1 is required by {owner}.")
    if n_features is not None and width != n_features:
        raise ModelError(
            f"X has {width} features, but {owner} is expecting {n_features} features as input; "
            "score the same columns as in the fit, or fit again"
        )
    if n < min_rows:
        raise ModelError(
            f"{owner}: found array with {n} sample(s) (shape={values.shape}) while a minimum of {min_rows} is required"
            "; give more events"
        )


def _format_rows(rows: list[int], total: int) -> str:
    text = ", ".join(str(row) for row in rows)
    return text + (f" and {total - len(rows)} more" if total > len(rows) else "")


def _format_columns(columns: list[int], names: Sequence[str] | None) -> str:
    shown = [repr(names[c]) if names is not None else str(c) for c in columns[:_MAX_SHOWN]]
    return _join_shown(shown, len(columns))


def _format_names(names: list[str]) -> str:
    return _join_shown([repr(name) for name in names[:_MAX_SHOWN]], len(names))


def _join_shown(shown: list[str], total: int) -> str:
    return ", ".join(shown) + (f" and {total - len(shown)} more" if total > len(shown) else "")
