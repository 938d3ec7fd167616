"""What `holomorphic=True` asks of inputs and outputs."""

from typing import Any

from gpujac.core.aval import dtype_of, kind
from gpujac.errors import DTypeError


def check_complex(what: str, *sides: tuple[Any, list]) -> None:
    """Raise for the first leaf that is not complex; a side knows the names of its leaves."""
    for side, leaves in sides:
        for i, x in enumerate(leaves):
            dtype = dtype_of(x)
            if kind(dtype) != "c":
                raise DTypeError(
                    f"{what}: {side.name(i)} is {dtype}, but holomorphic=True needs complex inputs and "
                    "outputs throughout; leave it out, or convert the array"
                )
