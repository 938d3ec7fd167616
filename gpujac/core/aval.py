"""Abstract values: shape and dtype without data, and what kind of number a dtype is."""

from typing import Any, NamedTuple

import numpy as np

from gpujac.errors import DTypeError

Shape = tuple[int, ...]


class Aval(NamedTuple):
    """Shape and dtype of an array that need not exist."""

    shape: Shape
    dtype: Any


_made = tuple.__new__  # a named tuple's own constructor takes twice as long
_KINDS: dict[Any, str] = {}  # by the class of a NumPy dtype
_PREFIXES = (("complex", "c"), ("float", "f"), ("bfloat", "f"), ("uint", "u"), ("int", "i"), ("bool", "b"))
_PYTHON = {
    float: np.dtype(np.float64),
    complex: np.dtype(np.complex128),
    int: np.dtype(np.int64),
    bool: np.dtype(np.bool),
}


def kind(dtype: Any) -> str:
    """The kind of `dtype`: "f", "c", "i", "u" or "b"; DTypeError for anything else."""
    found = _KINDS.get(dtype.__class__)  # NumPy has one class per dtype
    return found if found is not None else _classify(dtype)


def _classify(dtype: Any) -> str:
    name = str(dtype).rpartition(".")[2]
    for prefix, letter in _PREFIXES:
        if name.startswith(prefix):
            if isinstance(dtype, np.dtype):
                _KINDS[dtype.__class__] = letter
            return letter
    raise DTypeError(
        f"dtype {dtype} is not numeric: object, string and datetime arrays have no derivative; "
        "convert to a floating dtype"
    )


def is_differentiable(dtype: Any) -> bool:
    """Whether values of `dtype` carry a tangent (floating or complex)."""
    return kind(dtype) in "fc"


def is_one_of(kinds: str, x: Any) -> bool:
    """Whether an array or a number is of one of these kinds; texts, objects and dates are of none."""
    try:
        return kind(dtype_of(x)) in kinds
    except DTypeError:
        return False


def name_of(dtype: Any) -> str:
    """What a dtype is called, whatever its library."""
    return str(dtype).rpartition(".")[2]


def dtype_of(x: Any) -> Any:
    """The dtype of an array, tracer or Python number."""
    try:
        return x.dtype
    except AttributeError:
        found = _PYTHON.get(type(x))
        if found is None:
            raise DTypeError(f"{type(x).__name__} has no dtype: not an array or number") from None
        return found


def shape_of(x: Any) -> Shape:
    """The shape of an array, tracer or Python number."""
    try:
        return x.shape
    except AttributeError:
        return ()


def aval_of(x: Any) -> Aval:
    """Shape and dtype of an array, tracer or Python number."""
    try:
        return _made(Aval, (x.shape, x.dtype))
    except AttributeError:
        return Aval(shape_of(x), dtype_of(x))


def item_bytes(dtype: Any) -> int:
    """Bytes of one element."""
    try:
        return int(dtype.itemsize)
    except AttributeError:
        name = str(dtype).rpartition(".")[2]
        digits = "".join(c for c in name if c.isdigit())
        return int(digits) // 8 if digits else 1
