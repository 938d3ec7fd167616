"""The settings: what can be chosen once for a process, or for one block of code.

Each setting starts from the environment variable `GPUJAC_<NAME>`, read at its first use, else
from its default. `settings.override(...)` changes it for a block, in the calling thread (and in
asyncio tasks started there) only; assigning to an attribute changes it for the whole process.

| setting | values | meaning |
|---|---|---|
| `backend` | "auto", "numpy", "cupy", "emulated" | what `gpujac.cupy` and the demo use; "emulated": CuPy, no GPU |
| `memory` | None, bytes, "2GB" | cap on what one chunk of a Jacobian may hold |
| `nvtx` | "off", "transforms", "ops" | which NVTX ranges are opened; "ops": also one per traced operation |
| `missing_batch_rule` | "loop", "raise" | what vmap does at an op of yours without a batch rule |
| `decompositions` | "auto", "off" | whether an op without a rule is run as its decomposition into others |
| `kernels` | "auto", "off" | on CuPy, kernels of gpujac or only functions of CuPy; no difference on NumPy |
| `debug_nans` | False, True | stop at the first operation that makes a NaN or an infinity; one wait per operation |
| `tracebacks` | "short", "full" | whether errors in your function show two frames of ours in a row, or all |
| `deterministic` | False, True | repeated indices are added up in their order, equal bit for bit in every run |
| `plan_memory` | bytes, "64MB", None | memory of planned sweeps kept for the next Jacobian of the same program |
| `malloc_trim` | "auto", "off" | glibc hint that keeps freed blocks of 0.1 to 32 MB mapped |
| `sanitize` | "undefined", "address", "off" | what kernels are watched for on the CPU; "address" needs libasan loaded |

Example:
    >>> from gpujac import settings
    >>> settings.nvtx
    'transforms'
    >>> with settings.override(memory="2GB", nvtx="off"):
    ...     settings.memory, settings.nvtx
    (2000000000, 'off')
    >>> settings.memory is None
    True
"""

import math
import operator
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gpujac.errors import ArgumentError, ArgumentTypeError

__all__ = ["get", "override", "parse_bytes", "show"]

# The settings as attributes, for editors and type checkers; the values come from `get`.
backend: str
memory: int | None
nvtx: str
missing_batch_rule: str
decompositions: str
kernels: str
debug_nans: bool
tracebacks: str
deterministic: bool
plan_memory: int | None
malloc_trim: str
sanitize: str

_UNITS = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "kib": 2**10,
    "m": 10**6, "mb": 10**6, "mib": 2**20,
    "g": 10**9, "gb": 10**9, "gib": 2**30,
    "t": 10**12, "tb": 10**12, "tib": 2**40,
}  # fmt: skip
_BYTES = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e\+?[0-9]+)?)\s*([kmgt]?i?b?)\s*", re.IGNORECASE)
_WORDS = {"1": True, "true": True, "yes": True, "on": True,
          "0": False, "false": False, "no": False, "off": False}  # fmt: skip


def parse_bytes(value: Any, what: str = "memory") -> int | None:
    """A number of bytes from what a user wrote, or None for no limit.

    Args:
        value: None, a positive whole number of bytes, or text such as "2GB", "1.5 GiB", "800MB";
            kB, MB, GB, TB are powers of 1000 and KiB, MiB, GiB, TiB powers of 1024.
        what: the option's name, for the message.

    Returns:
        int of at least 1, or None.

    Raises:
        ArgumentError: text that is no size, or a size below one byte.
        ArgumentTypeError: neither None, number nor text.

    Example:
        >>> parse_bytes("2GB"), parse_bytes("1.5KiB"), parse_bytes(512), parse_bytes(None)
        (2000000000, 1536, 512, None)
    """
    if value is None:
        return None
    size = _size_of_text(value, what) if isinstance(value, str) else _size_of_number(value, what)
    if size < 1:
        raise ArgumentError(f"{what}={value!r} is below one byte; use a positive size or None.")
    return size


def _size_of_text(text: str, what: str) -> int:
    found = _BYTES.fullmatch(text)
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise ArgumentError(
            f"{what}={text!r} is not a size; write bytes as a number, or text such as '2GB', "
            "'800MB' or '1.5GiB', or None for no limit."
        )
    try:
        return int(found[1]) * unit if found[1].isdigit() else int(float(found[1]) * unit)
    except (OverflowError, ValueError):  # beyond what a float holds, or thousands of digits
        raise ArgumentError(f"{what}={text!r} is larger than any memory; use None for no limit.") from None


def _size_of_number(value: Any, what: str) -> int:
    if isinstance(value, float) and math.isfinite(value):
        return int(value)
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise ArgumentTypeError(
        f"{what}={value!r} has type {type(value).__name__}; use a number of bytes, text such as "
        "'2GB', or None."
    )


def _choice(*allowed: str) -> Callable[[Any, str], str]:
    """A check that accepts exactly the words `allowed`."""

    def check(value: Any, what: str) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        words = ", ".join(repr(word) for word in allowed)
        error = ArgumentError if isinstance(value, str) else ArgumentTypeError
        raise error(f"{what}={value!r} is not one of {words}.")

    return check


def _flag(value: Any, what: str) -> bool:
    if isinstance(value, bool):
        return value
    raise ArgumentTypeError(f"{what}={value!r} has type {type(value).__name__}; use True or False.")


def _flag_of_text(text: str, what: str) -> bool:
    word = text.strip().lower()
    if word not in _WORDS:
        raise ArgumentError(f"{what}={text!r} is not a switch; use 1 or 0.")
    return _WORDS[word]


def _size_or_none_of_text(text: str, what: str) -> int | None:
    return None if text.strip().lower() in ("", "none") else parse_bytes(text, what)


@dataclass(frozen=True)
class _Setting:
    """One setting: its default, the check of a Python value and the reader of environment text."""

    default: Any
    check: Callable[[Any, str], Any]
    read: Callable[[str, str], Any]


def _words(default: str, *others: str) -> _Setting:
    check = _choice(default, *others)
    return _Setting(default, check, check)


_SETTINGS: Mapping[str, _Setting] = {
    "backend": _words("auto", "numpy", "cupy", "emulated"),
    "memory": _Setting(None, parse_bytes, _size_or_none_of_text),
    "nvtx": _words("transforms", "off", "ops"),
    "missing_batch_rule": _words("loop", "raise"),
    "decompositions": _words("auto", "off"),
    "kernels": _words("auto", "off"),
    "debug_nans": _Setting(False, _flag, _flag_of_text),
    "tracebacks": _words("short", "full"),
    "deterministic": _Setting(False, _flag, _flag_of_text),
    "plan_memory": _Setting(64_000_000, parse_bytes, _size_or_none_of_text),
    "malloc_trim": _words("auto", "off"),
    "sanitize": _words("undefined", "address", "off"),
}
_process: dict[str, Any] = {}
_overrides: ContextVar[dict[str, Any] | None] = ContextVar("gpujac_settings", default=None)


def get(name: str) -> Any:
    """The value of one setting, here and now.

    Args:
        name: one of the settings.

    Returns:
        The innermost override in this thread, else the process's value.

    Raises:
        ArgumentError: no such setting, or its environment variable holds a wrong value.

    Cost:
        Two dictionary look-ups, below 0.1 us.

    Example:
        >>> get("missing_batch_rule")
        'loop'
    """
    block = _overrides.get()
    if block is not None and name in block:
        return block[name]
    try:
        return _process[name]
    except KeyError:
        return _first_read(name)


def _first_read(name: str) -> Any:
    """Fills in a setting that was not used before, from the environment or its default."""
    setting = _known(name)
    variable = f"GPUJAC_{name.upper()}"
    text = os.environ.get(variable)
    value = setting.default if text is None else setting.read(text, f"environment {variable}")
    return _process.setdefault(name, value)


def _known(name: str) -> _Setting:
    if name not in _SETTINGS:
        names = ", ".join(_SETTINGS)
        raise ArgumentError(f"settings: there is no setting {name!r}; there are {names}.")
    return _SETTINGS[name]


@contextmanager
def override(**values: Any) -> Iterator[None]:
    """Changes settings inside a `with` block, in the calling thread only.

    Args:
        **values: settings by name. All are checked before the first one changes.

    Raises:
        ArgumentError, ArgumentTypeError: an unknown name or a wrong value.

    Example:
        >>> with override(memory="2GB"):
        ...     get("memory")
        2000000000
        >>> get("memory") is None
        True
    """
    checked = {name: _checked(name, value) for name, value in values.items()}
    token = _overrides.set({**(_overrides.get() or {}), **checked})
    try:
        yield
    finally:
        _overrides.reset(token)


def _checked(name: str, value: Any) -> Any:
    return _known(name).check(value, f"settings.{name}")


def show() -> dict[str, Any]:
    """All settings with the values that hold here and now.

    Returns:
        A new dict, name to value.

    Example:
        >>> sorted(show())[:3]
        ['backend', 'debug_nans', 'decompositions']
    """
    return {name: get(name) for name in _SETTINGS}


class _SettingsModule(ModuleType):
    """The module's own class: `settings.name` reads a setting, `settings.name = v` checks it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SETTINGS:
            _process[name] = _checked(name, value)
        elif name in globals() or name.startswith("__"):
            super().__setattr__(name, value)
        else:
            _known(name)


def _reader(name: str) -> property:
    return property(lambda module: get(name))


for _name in _SETTINGS:
    setattr(_SettingsModule, _name, _reader(_name))
sys.modules[__name__].__class__ = _SettingsModule
