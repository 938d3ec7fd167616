"""The state that a loop carries: every iteration keeps its structure, shapes and dtypes."""

from typing import Any

from gpujac import trees
from gpujac.array import common as c
from gpujac.backends.choose import is_array
from gpujac.control import masks
from gpujac.core.aval import dtype_of, kind, shape_of
from gpujac.core.trace import Tracer
from gpujac.errors import ArgumentTypeError, DTypeError, ShapeError
from gpujac.ops import elementwise as ew


class Carry:
    """The state of a loop as flat leaves; `tree()` is what the user's functions get."""

    __slots__ = ("what", "spec", "leaves", "counted")

    def __init__(self, what: str, init: Any, counted: bool = False) -> None:
        self.what = what
        self.counted = counted  # an iteration meets an int64 counter in the place of a Python int
        leaves, self.spec = trees.flatten(init)
        for i, x in enumerate(leaves):
            if not isinstance(x, Tracer) and not is_array(x):
                raise ArgumentTypeError(
                    f"{what}: init{self._path(i)} is a {type(x).__name__}, not an array or a number; let the "
                    "functions capture it instead of carrying it"
                )
        self.leaves = [masks.copied(x) for x in leaves]  # the first iteration may write into its state

    def tree(self) -> Any:
        """The state as the user's functions see it."""
        return trees.unflatten(self.spec, self.leaves)

    def replace(self, new: Any, mask: Any = None) -> None:
        """Go on with `new`; where there is a mask, in the lanes where it holds."""
        found = trees.match(self.spec, new, f"{self.what}: the new carry")
        fresh = [self._checked(i, x, old) for i, (x, old) in enumerate(zip(found, self.leaves, strict=True))]
        if mask is not None:
            fresh = [ew.where(mask, x, old) for x, old in zip(fresh, self.leaves, strict=True)]
        self.leaves = fresh

    def _checked(self, i: int, x: Any, old: Any) -> Any:
        if not isinstance(x, Tracer) and not is_array(x):
            raise ArgumentTypeError(f"{self.what}: the new carry{self._path(i)} is a {type(x).__name__}, not an array")
        if shape_of(x) != shape_of(old):
            raise ShapeError(
                f"{self.what}: carry{self._path(i)} had shape {tuple(shape_of(old))} and now has "
                f"{tuple(shape_of(x))}; an iteration must keep the shape: give init the shape it ends with"
            )
        if dtype_of(x) == dtype_of(old):
            return x
        if masks.fits(x, old):
            return masks.as_leaf(x, old)
        if masks.is_number(old) and kind(dtype_of(x)) == kind(dtype_of(old)):
            return x  # the Python number that init held was only a start
        if self.counted and masks.widened(dtype_of(old), dtype_of(x)):
            return c.astype(x, dtype_of(old))
        raise DTypeError(
            f"{self.what}: carry{self._path(i)} was {dtype_of(old)} and now is {dtype_of(x)}; an iteration must "
            "keep the dtype: give init the dtype it ends with, or cast in the loop"
        )

    def _path(self, i: int) -> str:
        return "" if self.spec is trees.LEAF else trees.spec_paths(self.spec)[i]
