"""Decisions: predicates with one value, predicates with one per lane of vmap, and choosing between results."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpujac import trees
from gpujac.array import common as c
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES, backend_of, is_array
from gpujac.backends.host import PYTHON_SCALARS, SCALARS
from gpujac.core import taking
from gpujac.core.aval import dtype_of, is_differentiable, kind, name_of, shape_of
from gpujac.core.trace import Trace, Tracer, concrete, is_mapped, payload
from gpujac.errors import ArgumentTypeError, DTypeError, ShapeError, StructureError
from gpujac.ops import elementwise as ew
from gpujac.transforms import flatten as fl
from gpujac.transforms.batch import one_lane
from gpujac.transforms.keys import derived

MOST = 2**63 - 1  # of int64


def check_function(what: str, name: str, f: Any) -> None:
    """Raise unless `f` can be called."""
    if not callable(f):
        raise ArgumentTypeError(f"{what}: {name} must be a function, not {type(f).__name__}")


def scalar(what: str, name: str, x: Any) -> Any:
    """`x` if it is an array or number of shape ()."""
    if not isinstance(x, Tracer) and not is_array(x):
        raise ArgumentTypeError(f"{what}: {name} is a {type(x).__name__}, not a number or an array of shape ()")
    if shape_of(x) != ():
        raise ShapeError(
            f"{what}: {name} has shape {tuple(shape_of(x))}, but one decision needs a scalar; reduce it with "
            ".any() or .all(), decide entry by entry with np.where, or map over the axis with vmap"
        )
    return x


def integer(what: str, name: str, x: Any) -> Any:
    """A scalar integer: a Python int where it has one value, else traced, one per lane."""
    x = scalar(what, name, x)
    if type(x) is bool or kind(dtype_of(x)) not in "iu":
        raise DTypeError(f"{what}: {name} has dtype {dtype_of(x)}; give an integer")
    return _wide(x) if is_mapped(x) else int(concrete(x))


def _wide(x: Any) -> Any:
    """A traced integer as int64, in which counting and comparing neither wrap nor overflow."""
    if name_of(dtype_of(x)) == "uint64":  # no array and no loop reaches so far
        x = ew.minimum(x, MOST)
    return c.astype(x, "int64")


class Lanes:
    """The lanes where a decision holds: a traced mask of shape (), and the same with its entries on the host.

    Reading them is one wait for a device, unless `host` is there already. Lanes that only watch the code at
    work are not among them.
    """

    __slots__ = ("mask", "host", "flags")

    def __init__(self, mask: Any, host: Any = None) -> None:
        outer = taking.mask()
        if outer is not None:
            mask = ew.logical_and(mask, outer)
            host = None if host is None else ew.logical_and(host, taking.on_host())
        self.mask = mask
        self.host = on_host(mask) if host is None else host
        self.flags: np.ndarray = payload(self.host)

    def others(self) -> "Lanes":
        """The lanes where it does not hold."""
        away = self.host is not self.mask
        return Lanes(ew.logical_not(self.mask), ew.logical_not(self.host) if away else None)

    def any(self) -> bool:
        """Whether it holds in some lane."""
        return bool(self.flags.any())

    def every(self) -> bool:
        """Whether it holds in all lanes of all vmaps."""
        return bool(self.flags.all())

    def first(self) -> dict[Trace, int]:
        """One lane where it holds: its number in each vmap that the mask differs in."""
        levels, x = [], self.host
        while isinstance(x, Tracer):
            if x.owner.batches and x.aux is not None:
                levels.append(x)
            x = x.value
        place = np.unravel_index(int(np.argmax(self.flags)), self.flags.shape)
        axes = list(range(self.flags.ndim))  # those that the vmaps outside of a level have left
        return {x.owner: int(place[axes.pop(x.aux)]) for x in reversed(levels)}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run code for these lanes: the others compute along, unheard.

        NumPy cannot tell lanes apart and does not warn at all; settings.debug_nans looks at these lanes.
        """
        taking.enter(self.mask, self.host)
        try:
            with np.errstate(all="ignore"):
                yield
        finally:
            taking.leave()

    def operands(self, leaves: list) -> list:
        """Operands for that code: copies to write into, which hold in the other lanes what one of these has.

        Where derivatives follow, every lane so meets values of the kind that the code is for: an
        overflow in lanes that do not want it would be an infinite coefficient in the sweeps.
        """
        lane = self.first() if any([_is_followed(x) for x in leaves]) else {}
        own = [unshared(x) for x in leaves]
        return [self.filled(x, lane) if _is_followed(x) else x for x in own]

    def filled(self, x: Any, lane: dict[Trace, int]) -> Any:
        """`x`, with what it is in the lane `lane` in all lanes where the decision does not hold."""
        return ew.where(self.mask, x, _in_lane(x, lane))


def on_host(x: Any) -> Any:
    """A traced array with its entries on the host: one wait for a device, none where they are there."""
    inner = payload(x)
    return x if inner.__class__ in HOST_TYPES else _holding(x, c.on_host(inner))


def _holding(x: Any, values: Any) -> Any:
    """A traced array like `x` of other entries."""
    if not isinstance(x, Tracer):
        return values
    return TracedArray(x.owner, _holding(x.value, values), x.aux, x.shape, x.dtype)


def follow(old: Trace, new: Trace) -> list:
    """Code of the lanes of vmap `old` begins in those of `new`: their masks with it, until `taking.put_back`."""
    aside = taking.TAKING.masks
    if aside:
        taking.TAKING.masks = [(_moved(mask, old, new), _moved(host, old, new)) for mask, host in aside]
    return aside


def _moved(mask: Any, old: Trace, new: Trace) -> Any:
    """A mask whose lanes of `old` are those of `new`."""
    if not isinstance(mask, Tracer):
        return mask
    if mask.owner is old:
        return TracedArray(new, mask.value, mask.aux, mask.shape, mask.dtype)
    inner = _moved(mask.value, old, new)
    return mask if inner is mask.value else TracedArray(mask.owner, inner, mask.aux, mask.shape, mask.dtype)


def unshared(x: Any) -> Any:
    """`x` as an array that no write into another one changes; a number, or what is no array, as it is."""
    if not isinstance(x, Tracer) and (type(x) in SCALARS or not is_array(x)):
        return x
    return copied(x)


def copied(x: Any) -> Any:
    """A copy for the user's functions to write into; that of a lane's random key is the lane's, too."""
    y = fl.private(x)
    return y if isinstance(x, Tracer) or kind(dtype_of(x)) not in "iu" else derived(y, x)


def decision(what: str, name: str, x: Any) -> bool | Lanes:
    """A predicate: True or False where it has one value, else the lanes where it holds."""
    x = scalar(what, name, x)
    if not is_mapped(x):
        return bool(concrete(x))
    return Lanes(x if kind(dtype_of(x)) == "b" else ew.not_equal(x, 0))


def _is_followed(x: Any) -> bool:
    """Whether a transform asks for derivatives of `x`."""
    if not isinstance(x, Tracer) or not is_differentiable(x.dtype):
        return False
    while isinstance(x, Tracer):
        if x.aux is not None and not x.owner.batches:
            return True
        x = x.value
    return False


def _in_lane(x: Any, lane: dict[Trace, int]) -> Any:
    """The value of `x` in one lane, as a constant; zero where it has no value."""
    if not isinstance(x, Tracer):
        return x
    if payload(x) is None:  # a linear function is being recorded
        return 0.0
    if not x.owner.batches or x.aux is None:
        return _in_lane(x.value, lane)
    if x.owner in lane:
        return _in_lane(one_lane(x.value, x.aux, lane[x.owner]), lane)
    return type(x)(x.owner, _in_lane(x.value, lane), x.aux, x.shape, x.dtype)


def chosen(what: str, mask: Any, names: tuple[str, str], a: Any, b: Any) -> Any:
    """The tree with the leaves of `a` where the mask holds, and of `b` elsewhere."""
    leaves, spec = trees.flatten(a)
    others = trees.match(spec, b, f"{what}: the result of {names[1]}, beside that of {names[0]}")
    done = []
    for i, (x, y) in enumerate(zip(leaves, others, strict=True)):
        x, y = _agreeing(what, names, spec, i, x, y)
        done.append(unshared(x) if x is y else ew.where(mask, x, y))
    return trees.unflatten(spec, done)


def _agreeing(what: str, names: tuple[str, str], spec: trees.Spec, leaf: int, x: Any, y: Any) -> tuple[Any, Any]:
    """Two leaves of one shape and dtype, or an error that says which differ."""
    known = all([isinstance(v, Tracer) or is_array(v) for v in (x, y)])
    if known and dtype_of(x) == dtype_of(y) and shape_of(x) == shape_of(y):
        return x, y  # most are; the path is for messages, and costs as much as the tree has leaves
    path = trees.spec_paths(spec)[leaf]
    if not known:
        if x is y or (type(x) is type(y) and bool(x == y)):
            return x, x
        raise StructureError(
            f"{what}: result{path} is {x!r} from {names[0]} and {y!r} from {names[1]}; where lanes of vmap "
            "decide differently only arrays and numbers can be chosen between"
        )
    if shape_of(x) != shape_of(y):
        raise ShapeError(
            f"{what}: result{path} has shape {tuple(shape_of(x))} from {names[0]} and {tuple(shape_of(y))} from "
            f"{names[1]}; under vmap both must have the same"
        )
    if dtype_of(x) == dtype_of(y) or fits(x, y) or fits(y, x):
        return x, y
    raise DTypeError(
        f"{what}: result{path} is {dtype_of(x)} from {names[0]} and {dtype_of(y)} from {names[1]}; under vmap "
        "both must have the same dtype: cast one"
    )


def is_number(x: Any) -> bool:
    """Whether `x` is a Python number, or a traced one: its dtype gives way to those of arrays."""
    return type(payload(x)) in PYTHON_SCALARS


def fits(x: Any, y: Any) -> bool:
    """Whether `x` is a Python number that takes the dtype of the array `y` without changing it."""
    return is_number(x) and "biufc".index(kind(dtype_of(x))) <= "biufc".index(kind(dtype_of(y)))


def as_leaf(x: Any, like: Any) -> Any:
    """A Python number in the dtype and library of the array `like`."""
    if not is_number(x) or is_number(like):
        return x
    if isinstance(x, Tracer):
        return c.astype(x, dtype_of(like))
    target = fl.like_of(like)
    return backend_of(target).asarray(x, c.as_dtype(dtype_of(like), target), target)[()]


def widened(old: Any, new: Any) -> bool:
    """Whether `new` is what a dtype becomes beside an int64 array, where a Python int would leave it alone."""
    a, b = name_of(old), name_of(new)
    if kind(old) in "iu":
        return b == "int64"
    return (a, b) in (("float16", "float64"), ("float32", "float64"), ("complex64", "complex128"))
