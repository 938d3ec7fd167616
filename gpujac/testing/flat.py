"""A function at a point, seen as a function of its floating leaves that returns its floating leaves."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac import trees
from gpujac.backends.choose import backend_of, is_array
from gpujac.backends.host import SCALARS
from gpujac.core.aval import dtype_of, is_one_of
from gpujac.core.finite import on_host
from gpujac.core.trace import Tracer
from gpujac.errors import ArgumentError, ArgumentTypeError
from gpujac.transforms import flatten as fl
from gpujac.transforms.jvp import jvp
from gpujac.transforms.vjp import vjp


class Flat:
    """`fn(*xs)` returns a tuple of arrays; the leaves have names for messages.

    Attributes:
        label: what the function is, "f" or "jvp of f".
        xs: the point.
        ins, outs: names of the leaves, as in `args[0]['w']`.
    """

    def __init__(self, label: str, fn: Callable[..., tuple], xs: list, ins: list[str], outs: list[str]) -> None:
        self.label, self.fn, self.xs, self.ins, self.outs = label, fn, xs, ins, outs

    def values(self, xs: list | None = None) -> list[np.ndarray]:
        """Its results on plain arrays, as NumPy's."""
        with np.errstate(all="ignore"):
            return [on_host(y) for y in self.fn(*(self.xs if xs is None else xs))]

    def pushed(self, ts: list) -> "Flat":
        """The tangent along `ts` as a function of the point."""

        def fn(*xs: Any) -> tuple:
            return jvp(self.fn, xs, tuple(ts))[1]

        return Flat(f"jvp of {self.label}", fn, self.xs, self.ins, [f"the tangent of {name}" for name in self.outs])

    def pulled(self, cts: list) -> "Flat":
        """The pullback of `cts` as a function of the point."""

        def fn(*xs: Any) -> tuple:
            return vjp(self.fn, *xs)[1](tuple(cts))

        return Flat(f"vjp of {self.label}", fn, self.xs, self.ins, [f"the cotangent of {name}" for name in self.ins])


def flat_of(what: str, f: Callable, args: Any) -> Flat:
    """The view of `f` at `args`: other leaves than floating ones are held fixed, or dropped from the output."""
    fl.check_callable(what, f)
    if not isinstance(args, tuple):
        raise ArgumentTypeError(f"{what}: args must be a tuple, not {type(args).__name__}; write (x,) for one argument")
    leaves, spec = trees.flatten(args)
    moving = [i for i, x in enumerate(leaves) if _floating(x)]
    if not moving:
        raise ArgumentError(f"{what}: args holds no floating array, so there is nothing to differentiate")
    result, out_spec = trees.flatten(f(*trees.unflatten(spec, [copy_of(x) for x in leaves])))
    kept = [i for i, y in enumerate(result) if _floating(y)]
    if not kept:
        raise ArgumentError(f"{what}: f returned no floating array, so there is nothing to differentiate")

    def fn(*xs: Any) -> tuple:
        whole = [copy_of(x) for x in leaves]
        for i, x in zip(moving, xs, strict=True):
            whole[i] = copy_of(x)
        ys = trees.match(out_spec, f(*trees.unflatten(spec, whole)), f"{what}: the output of the traced function")
        return tuple(ys[i] for i in kept)

    paths, outs = trees.spec_paths(spec), trees.spec_paths(out_spec)
    return Flat("f", fn, [leaves[i] for i in moving], [f"args{paths[i]}" for i in moving],
                [f"output{outs[i]}" for i in kept])  # fmt: skip


def _floating(x: Any) -> bool:
    return (isinstance(x, Tracer) or x.__class__ in SCALARS or is_array(x)) and is_one_of("fc", x)


def copy_of(x: Any) -> Any:
    """A plain array copied, so that f may write into it; all else as it is."""
    if isinstance(x, Tracer) or x.__class__ in SCALARS or not is_array(x):
        return x
    return backend_of(x).copy(x)


def like(values: np.ndarray, x: Any) -> Any:
    """NumPy values as an array of the library, device and dtype of `x` (of double precision for a number)."""
    if x.__class__ in SCALARS or x.__class__ is np.ndarray:
        return np.asarray(values, np.asarray(x).dtype)
    return backend_of(x).asarray(values, dtype_of(x), x)


def directions(xs: list, rng: np.random.Generator) -> list:
    """A random direction for each array: entries of the size of the array's own, none near zero."""

    def draw(x: Any) -> Any:
        values = on_host(x)
        size = float(np.sqrt(np.mean(np.abs(values) ** 2))) if values.size else 1.0
        t = rng.uniform(0.3, 1.2, values.shape) * rng.choice([-1.0, 1.0], values.shape)
        if values.dtype.kind == "c":
            t = t + 1j * rng.uniform(-1.0, 1.0, values.shape)
        return like(t * (size if np.isfinite(size) and size > 0 else 1.0), x)

    return [draw(x) for x in xs]
