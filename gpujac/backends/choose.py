"""Which backend owns a value: a dictionary by type, filled at first sight."""

import importlib
from typing import Any

import array_api_compat
import numpy as np

from gpujac.backends import host
from gpujac.backends.generic import Generic
from gpujac.backends.protocol import Backend
from gpujac.errors import ArgumentTypeError, BackendError

HOST_TYPES = host.TYPES
_BY_TYPE: dict[type, Backend] = dict.fromkeys(host.TYPES, host.HOST)
_BY_NAMESPACE: dict[str, Backend] = {"numpy": host.HOST}


def backend_of(x: Any) -> Backend:
    """The backend that owns the concrete value `x`."""
    found = _BY_TYPE.get(type(x))
    return found if found is not None else _learn(x)


def common_backend(operands: tuple) -> Backend:
    """The one backend of all operands; scalars mix with everything."""
    if all([type(x) in HOST_TYPES for x in operands]):
        return host.HOST
    chosen: Backend | None = None
    owner: Any = None
    for x in operands:
        if type(x) in host.SCALARS:
            continue
        backend = backend_of(x)
        if chosen is not None and backend is not chosen:
            raise BackendError(
                f"operands of two array libraries in one operation: {type(owner).__module__} "
                f"{tuple(owner.shape)} and {type(x).__module__} {tuple(x.shape)}; "
                "convert one of them first"
            )
        chosen, owner = backend, x
    return chosen if chosen is not None else host.HOST


def is_array(x: Any) -> bool:
    """Whether `x` is an array or a number that some backend owns."""
    if type(x) in _BY_TYPE:
        return True
    if isinstance(x, (str, bytes, type, list, tuple, dict, set)) or x is None:
        return False
    try:
        _learn(x)
    except ArgumentTypeError:
        return False
    return True


def _learn(x: Any) -> Backend:
    kind = type(x)
    if isinstance(x, (np.matrix, np.ma.MaskedArray)):
        raise ArgumentTypeError(
            f"numpy.{kind.__name__} gives operators another meaning; convert it with np.asarray(x)"
        )
    backend: Backend = host.HOST if isinstance(x, np.ndarray) else _from_namespace(x)
    _BY_TYPE[kind] = backend
    return backend


def _from_namespace(x: Any) -> Backend:
    try:
        xp = array_api_compat.array_namespace(x)
    except TypeError:
        raise ArgumentTypeError(
            f"{type(x).__module__}.{type(x).__name__} is not an array of a supported library "
            "(NumPy, CuPy, or one that implements the Python array API standard)"
        ) from None
    name = xp.__name__
    if "cupy" in name:
        return load("cupy")
    if name not in _BY_NAMESPACE:
        _BY_NAMESPACE[name] = Generic(xp)
    return _BY_NAMESPACE[name]


def load(name: str) -> Backend:
    """The backend called `name`, imported at first need (one of two places with late imports)."""
    if name not in _BY_NAMESPACE:
        try:
            module = importlib.import_module(f"gpujac.backends.{name}")
        except ImportError as error:
            raise BackendError(
                f"backend {name!r} cannot be loaded ({error}); installed backends: "
                f"{sorted(_BY_NAMESPACE)}"
            ) from error
        _BY_NAMESPACE[name] = module.BACKEND
    return _BY_NAMESPACE[name]
