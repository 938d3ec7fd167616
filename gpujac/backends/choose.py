"""Which backend owns a value: a dictionary by type, filled at first sight."""

import importlib
from typing import Any

import array_api_compat
import numpy as np

from gpujac import settings
from gpujac.backends import host
from gpujac.backends.generic import Generic
from gpujac.backends.protocol import Backend
from gpujac.errors import ArgumentTypeError, BackendError

HOST_TYPES = host.TYPES
_BY_TYPE: dict[type, Backend] = dict.fromkeys(host.TYPES, host.HOST)
_BY_NAMESPACE: dict[str, Backend] = {"numpy": host.HOST}
WRITABLE: set[type] = {np.ndarray, np.memmap}  # arrays that a user can write into behind a trace


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
            raise _mixed(chosen, owner, backend, x)
        chosen, owner = backend, x
    if chosen is None:
        return host.HOST
    chosen.check_devices(operands)
    return chosen


def _mixed(one: Backend, x: Any, other: Backend, y: Any) -> BackendError:
    """The error for operands of two libraries, with the cure that fits them."""
    cure = "convert one of them first"
    if {one.name, other.name} in ({"numpy", "cupy"}, {"numpy", "emulated"}):
        cure = (
            "put the NumPy array on the device once, before the function runs (cupy.asarray(a)), or make "
            "it there (import gpujac.cupy as np)"
        )
    return BackendError(
        f"operands of two array libraries in one operation: {one.name} {tuple(x.shape)} and "
        f"{other.name} {tuple(y.shape)}; {cure}"
    )


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
    backend: Backend
    if isinstance(x, (np.matrix, np.ma.MaskedArray)):
        raise ArgumentTypeError(
            f"numpy.{kind.__name__} gives operators another meaning; convert it with np.asarray(x)"
        )
    own = getattr(kind, "gpujac_backend", None)
    if own is not None:
        backend = load(own)
    else:
        backend = host.HOST if isinstance(x, np.ndarray) else _from_namespace(x)
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
        WRITABLE.update(module.TYPES)
    return _BY_NAMESPACE[name]


def device() -> Backend:
    """The backend of `gpujac.cupy`: CuPy's, or the emulated one where settings.backend says so."""
    return load("emulated" if settings.get("backend") == "emulated" else "cupy")
