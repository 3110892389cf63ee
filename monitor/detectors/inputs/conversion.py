"""Detectors: what people call a table of numbers (arrays, tensors, frames, lists), as one float array."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError

FloatArray = NDArray[np.floating[Any]]

_MISSING_TYPES = ("NAType", "NaTType")  # pandas' own, which needs no import to be recognised
_COMPLEX_CHECK_ELEMENTS = 5


class _NotANumberError(ModelError, TypeError):
    """The events hold an object that is no number."""


def column_names(x: object) -> tuple[str, ...] | None:
    """Return the names of a frame's columns, or None for anything without text names."""
    columns = getattr(x, "column_names", None)  # an Arrow table
    if columns is None and hasattr(x, "to_numpy"):
        columns = getattr(x, "columns", None)
    if columns is None or isinstance(columns, str) or not hasattr(columns, "__iter__"):
        return None
    names = list(columns)
    return tuple(names) if all(isinstance(name, str) for name in names) else None


def to_numpy(x: object) -> Any:
    """Take a tensor to the host and a frame to an array; leave the rest alone.

    What a masked array hides and what a frame lacks becomes NaN.
    """
    if isinstance(x, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(x), np.nan, x.data) if np.ma.is_masked(x) else x.data
    if hasattr(x, "detach") and hasattr(x, "cpu"):
        return _tensor_to_numpy(x)
    if not hasattr(x, "to_numpy"):
        return x
    values = x.to_numpy()
    if getattr(getattr(values, "dtype", None), "kind", "") == "O" and _is_numeric_frame(x):
        return x.to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def to_float_array(x: object, owner: str, names: tuple[str, ...] | None) -> FloatArray:
    """Return `x` as a contiguous float32 or float64 array of any number of dimensions.

    Raises:
        ModelError: it holds something else than real numbers.
    """
    if x is None:
        raise ModelError(f"{owner}: x is None; give an array of shape (events, features)")
    if isinstance(x, str | bytes):
        raise ModelError(f"{owner}: x is text; give numbers of shape (events, features), not a file name")
    if hasattr(x, "tocsr"):
        raise ModelError(
            f"{owner}: x is a sparse matrix, and a dense array is needed: pass x.toarray() when it fits in memory"
        )
    try:
        array = np.asarray(to_numpy(x))
    except (NotImplementedError, RuntimeError, TypeError) as reason:
        raise ModelError(f"{owner}: x is a {type(x).__name__} that cannot be read: {reason}") from reason
    except ValueError as reason:
        raise ModelError(f"{owner}: x cannot be read as one array of rows of equal length: {reason}") from reason
    if array.dtype.kind == "O":
        array = _convert_objects(array, owner, names)
    if array.dtype.kind == "c":
        raise ModelError(f"{owner}: Complex data not supported; give real numbers")
    if array.dtype.kind not in "biuf":
        raise ModelError(
            f"{owner}: x holds {array.dtype} and must hold numbers; convert or drop the text and date columns"
        )
    single = array.dtype.kind == "f" and array.dtype.itemsize == 4
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinity, which is refused with its place
        return array.astype(np.float32 if single else np.float64, order="C", copy=False)


def _tensor_to_numpy(x: Any) -> Any:
    tensor = x.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return tensor.numpy()


def _is_numeric_frame(frame: Any) -> bool:
    """Return whether every column of a pandas frame is of a numeric type, its nullable types among them."""
    dtypes = getattr(frame, "dtypes", None)
    return dtypes is not None and all(getattr(dtype, "kind", "O") in "biuf" for dtype in np.atleast_1d(dtypes))


def _convert_objects(array: NDArray[Any], owner: str, names: tuple[str, ...] | None) -> NDArray[Any]:
    """Convert an object array of numbers; say where the first thing stands that is none."""
    absent = []
    for place, value in np.ndenumerate(array):
        if type(value).__name__ in _MISSING_TYPES:
            absent.append(place)
        elif isinstance(value, str | bytes) or value is None or not hasattr(value, "__float__"):
            column = place[1] if len(place) > 1 else 0
            what = "missing (None)" if value is None else f"{value!r}"
            label = names[column] if names else str(column)
            raise _NotANumberError(
                f"{owner}: x must hold numbers, but row {place[0] if place else 0}, column {label} is {what} "
                "(argument must be a string or a number that float() takes)"
            )
    if absent:
        array = array.copy()
        for place in absent:
            array[place] = np.nan
    if any(isinstance(value, complex) for value in array.ravel()[:_COMPLEX_CHECK_ELEMENTS]):
        return array.astype(np.complex128)
    try:
        return array.astype(np.float64)
    except (OverflowError, TypeError, ValueError) as reason:
        raise _NotANumberError(f"{owner}: x must hold numbers that fit in float64: {reason}") from reason
