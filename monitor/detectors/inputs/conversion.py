"""Conversion of arrays, tensors, data frames and lists to one float array."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError

FloatArray = NDArray[np.floating[Any]]

_MISSING_TYPES = ("NAType", "NaTType")  # the type names of pandas' missing values; pandas is not imported
_COMPLEX_CHECK_ELEMENTS = 5


class _NotANumberError(ModelError, TypeError):
    """An element of the events is not a number."""


def column_names(x: object) -> tuple[str, ...] | None:
    """Return the column names of a frame, or None if `x` has no string column names."""
    columns = getattr(x, "column_names", None)  # an Arrow table
    if columns is None and hasattr(x, "to_numpy"):
        columns = getattr(x, "columns", None)
    if columns is None or isinstance(columns, str) or not hasattr(columns, "__iter__"):
        return None
    names = list(columns)
    return tuple(names) if all(isinstance(name, str) for name in names) else None


def to_numpy(x: object) -> Any:
    """Return a tensor or a frame as a numpy array, and every other object unchanged.

    Masked and missing elements become NaN.
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
        ModelError: `x` cannot be read, or an element is not a real number.
    """
    if x is None:
        raise ModelError(f"{owner}: x is None; pass an array of shape (events, features)")
    if isinstance(x, str | bytes):
        raise ModelError(f"{owner}: x is text; pass numbers of shape (events, features), not a file name")
    if hasattr(x, "tocsr"):
        raise ModelError(
            f"{owner}: x is a sparse matrix, but a dense array is required: pass x.toarray() if it fits in memory"
        )
    try:
        array = np.asarray(to_numpy(x))
    except (NotImplementedError, RuntimeError, TypeError) as error:
        raise ModelError(f"{owner}: x is a {type(x).__name__} that cannot be read: {error}") from error
    except ValueError as error:
        raise ModelError(f"{owner}: x cannot be read as one array of rows of equal length: {error}") from error
    if array.dtype.kind == "O":
        array = _convert_objects(array, owner, names)
    if array.dtype.kind == "c":
        raise ModelError(f"{owner}: Complex data not supported; pass real numbers")
    if array.dtype.kind not in "biuf":
        raise ModelError(
            f"{owner}: x holds {array.dtype} and must hold numbers; convert or drop the text and date columns"
        )
    is_float32 = array.dtype.kind == "f" and array.dtype.itemsize == 4
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinity, which check_finite reports
        return array.astype(np.float32 if is_float32 else np.float64, order="C", copy=False)


def _tensor_to_numpy(x: Any) -> Any:
    tensor = x.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return tensor.numpy()


def _is_numeric_frame(frame: Any) -> bool:
    """Return True if every column of a pandas frame has a numeric type, nullable types included."""
    dtypes = getattr(frame, "dtypes", None)
    return dtypes is not None and all(getattr(dtype, "kind", "O") in "biuf" for dtype in np.atleast_1d(dtypes))


def _convert_objects(array: NDArray[Any], owner: str, names: tuple[str, ...] | None) -> NDArray[Any]:
    """Convert an object array of numbers; the error names the row and column of the first other object."""
    missing = []
    for index, value in np.ndenumerate(array):
        if type(value).__name__ in _MISSING_TYPES:
            missing.append(index)
        elif isinstance(value, str | bytes) or value is None or not hasattr(value, "__float__"):
            column = index[1] if len(index) > 1 else 0
            description = "missing (None)" if value is None else f"{value!r}"
            label = names[column] if names else str(column)
            raise _NotANumberError(
                f"{owner}: x must hold numbers, but row {index[0] if index else 0}, column {label} is {description} "
                "(argument must be a string or a number that float() takes)"
            )
    if missing:
        array = array.copy()
        for index in missing:
            array[index] = np.nan
    if any(isinstance(value, complex) for value in array.ravel()[:_COMPLEX_CHECK_ELEMENTS]):
        return array.astype(np.complex128)
    try:
        return array.astype(np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise _NotANumberError(f"{owner}: x must hold numbers that fit in float64: {error}") from error
