"""What a traced array says of memory that it has not: flags, strides, kinds of scattered writes."""

import itertools
from typing import Any, NamedTuple

import numpy as np

from gpujac.errors import DispatchError


class Flags(NamedTuple):
    """The memory order of an array of constants made like a traced one (`cp.zeros_like(x)`)."""

    c_contiguous: bool
    f_contiguous: bool
    owndata: bool = True

    @property
    def fnc(self) -> bool:
        """Whether Fortran's order holds and C's does not."""
        return self.f_contiguous and not self.c_contiguous

    @property
    def forc(self) -> bool:
        """Whether one of the two orders holds."""
        return self.f_contiguous or self.c_contiguous


def strides(shape: tuple[int, ...], item_bytes: int) -> tuple[int, ...]:
    """The steps in bytes of a C-contiguous array."""
    steps = itertools.accumulate(shape[:0:-1], int.__mul__, initial=item_bytes)
    return tuple(steps)[::-1] if shape else ()


_SCATTERS: dict[str, Any] = {"add": np.add, "sub": np.subtract}


def scattering(how: str) -> Any:
    """The ufunc behind CuPy's word for a scattered write."""
    if how in _SCATTERS:
        return _SCATTERS[how]
    raise DispatchError(
        f"ufunc.at and scatter_{how} are not supported on traced arrays, except for add and subtract; "
        "write it with indexing and the functions of gpujac.cupy"
    )
