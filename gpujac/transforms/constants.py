"""Arrays of outside that a linear program reads later: as they are now, whatever the user writes in between."""

from typing import Any

import numpy as np

from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES, backend_of
from gpujac.backends.memory import freeze, is_held, is_writable, sampled, thaw
from gpujac.errors import MutationError

_COPIED_BYTES = 32 << 10  # a copy of this costs less than a microsecond


def kept(self: Any, constant: Any) -> Any:
    """A constant as it is now: the program reads it after the user's code has gone on.

    Small arrays are copied; large ones, and those they are views of, are read-only until the
    function has returned, so that a write into a work buffer is an error and never a wrong
    derivative. A method of whatever has a list `frozen`: called as often as an operation, it is
    worth no second frame.
    """
    if constant.__class__ is TracedArray:  # of an outer level: writable behind its name
        return constant.detached()
    own: Any = constant.__class__
    if own not in HOST_TYPES:
        return backend_of(constant).kept(constant)
    if not is_writable(constant) and not is_held(constant):
        return constant
    if constant.nbytes <= _COPIED_BYTES:
        return constant.copy()
    freeze(constant, self.frozen)
    return constant


class Constants:
    """The constants of a program that is recorded where no trace with values keeps them."""

    __slots__ = ("frozen",)

    def __init__(self) -> None:
        self.frozen: list = []

    kept = kept

    def close(self) -> None:
        """Let the user write again."""
        thaw(self.frozen)
        self.frozen = []


Watched = list[tuple[Any, Any]]


def watch(arrays: list) -> Watched:
    """Samples of arrays that are not copied, by which later writes are noticed."""
    return [(x, sampled(x)) for x in arrays]


def check_unwritten(what: str, watched: Watched, cure: str) -> None:
    """Raise if one of the arrays has been written into since; `cure` says what to do."""
    for x, before in watched:
        if not np.array_equal(sampled(x), before, equal_nan=True):
            raise MutationError(
                f"{what}: an array of shape {x.shape} that the function read has been written into since, so {cure}"
            )
