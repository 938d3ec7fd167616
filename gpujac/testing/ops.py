"""A custom operation against itself: devices, shapes, memory, derivatives and batching."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac import arrays
from gpujac.control.registered import find
from gpujac.core.aval import dtype_of, shape_of
from gpujac.core.finite import on_host
from gpujac.errors import MissingRuleError
from gpujac.testing.batching import check_batching
from gpujac.testing.derivatives import check_derivatives
from gpujac.testing.flat import copy_of
from gpujac.testing.report import check_allowed, check_count, compare, factor, largest, tolerance
from gpujac.transforms.vjp import vjp


def check_op(op: Any, args: tuple, *, order: int = 1, allowed: float | None = None, seed: int = 0) -> tuple[str, ...]:
    """Checks everything that is registered for a custom operation, at `args`.

    Implementations leave their operands alone, agree between devices, and return what `impl_abstract`
    foretells; derivatives pass `check_derivatives`, and vmap passes `check_batching`. Without a derivative
    rule, a derivative must be refused, never zero.

    Args:
        op: the operation or its name "ns::name".
        args: tuple of arguments, arrays of NumPy or CuPy among them.
        order: highest order of derivative to check.
        allowed: relative error of a derivative (default: by dtype).
        seed: of the random directions.

    Returns:
        The names of the checks that ran: "operands", "devices" (only where both implementations and CuPy are
        there), "abstract", "derivatives" or "refusal", "batching".

    Raises:
        AssertionError: with the check, the leaf and both values.
        RegistrationError: no such operation.

    Cost: that of `check_derivatives` and `check_batching`.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> from gpujac.testing import check_op
        >>> @gj.custom_op("doc_testing::double")
        ... def double(x: np.ndarray) -> np.ndarray:
        ...     '''Twice x.'''
        >>> @gj.impl("doc_testing::double", device_types="cpu")
        ... def double_cpu(x):
        ...     return 2 * x
        >>> check_op("doc_testing::double", (np.ones(3),))
        ('operands', 'refusal', 'batching')
        >>> gj.control.remove_custom_op("doc_testing::double")
    """
    op = find(op)
    check_count("check_op", "order", order, 1)
    check_allowed("check_op", allowed)
    done = ["operands"]
    results = _check_operands(op, args)
    if _check_devices(op, args, results):
        done.append("devices")
    if op.has("abstract"):
        _check_abstract(op, args, results)
        done.append("abstract")
    if op.has("backward") or op.has("jvp"):
        check_derivatives(*_of_arrays(op, args), order=order, batching=False, allowed=allowed, seed=seed)
        done.append("derivatives")
    elif _check_refusal(op, args):
        done.append("refusal")
    with warnings.catch_warnings():
        if not op.has("vmap"):  # lane by lane is what it asked for
            warnings.simplefilter("ignore", RuntimeWarning)
        check_batching(*_of_arrays(op, args), seed=seed)
    return (*done, "batching")


def _taken(op: Any, args: tuple) -> list[int]:
    """The positions of the arguments that hold arrays: not of static ones, nor of absent ones."""
    parameters = zip(op.schema.parameters, args, strict=False)  # a default may stand for the last ones
    return [i for i, (p, a) in enumerate(parameters) if p.kind != "static" and a is not None]


def _of_arrays(op: Any, args: tuple, positions: list[int] | None = None) -> tuple[Callable, tuple]:
    """The operation as a function of the arguments at these positions, the others fixed; and those."""
    taken = _taken(op, args) if positions is None else positions

    def alone(*xs: Any) -> Any:
        given = dict(zip(taken, xs, strict=True))
        return op(*[given.get(i, a) for i, a in enumerate(args)])

    return alone, tuple([args[i] for i in taken])


def _arrays(op: Any, args: tuple) -> list:
    return [x for i in _taken(op, args) for x in (args[i] if isinstance(args[i], (list, tuple)) else [args[i]])]


def _check_operands(op: Any, args: tuple) -> tuple:
    """The results; raises if the implementation wrote into its operands."""
    before = [copy_of(x) for x in _arrays(op, args)]
    results: tuple = op.evaluate(*args)
    for number, (x, old) in enumerate(zip(_arrays(op, args), before, strict=True)):
        if not np.array_equal(on_host(x), on_host(old), equal_nan=True):
            raise AssertionError(f"check_op: the implementation of {op.qualname} wrote into its array operand {number}")
    return results


def _check_devices(op: Any, args: tuple, results: tuple) -> bool:
    """The implementations for NumPy's and CuPy's arrays agree; False where there are not both."""
    if not (op.has("cpu") and op.has("cuda")):
        return False
    there = arrays.chosen("auto")
    if there.device is None or any(not isinstance(x, np.ndarray) for x in _arrays(op, args)):
        return False

    def moved(a: Any) -> Any:
        if isinstance(a, (list, tuple)):
            return type(a)(map(moved, a))
        return there.there(a) if isinstance(a, np.ndarray) else a

    found = [on_host(y) for y in op.evaluate(*map(moved, args))]
    expected = [on_host(y) for y in results]
    allowed = tolerance(expected).same * 10  # two libraries, which add in different orders
    floors = [allowed * largest(expected) * 1e-2] * len(expected)
    names = [f"output {k}" for k in range(len(expected))]
    compare(f"check_op: {op.qualname} on cuda against cpu", names, found, expected, allowed, floors, factor)
    return True


def _check_abstract(op: Any, args: tuple, results: tuple) -> None:
    """impl_abstract tells the shapes and dtypes of the results."""
    for k, (aval, y) in enumerate(zip(op.abstract(*args), results, strict=True)):
        real = (tuple(shape_of(y)), str(dtype_of(y)))
        told = (tuple(aval.shape), str(aval.dtype))
        if real != told:
            raise AssertionError(
                f"check_op: impl_abstract of {op.qualname} foretells shape {told[0]} and dtype {told[1]} for output "
                f"{k}, but the implementation returned shape {real[0]} and dtype {real[1]}"
            )


def _check_refusal(op: Any, args: tuple) -> bool:
    """Without a rule a derivative is refused; False where no operand carries one."""
    moving = [
        i for i in _taken(op, args)
        if all([on_host(x).dtype.kind in "fc" for x in (args[i] if isinstance(args[i], (list, tuple)) else [args[i]])])
    ]  # fmt: skip
    if not moving:
        return False
    alone, primals = _of_arrays(op, args, moving)
    try:
        vjp(alone, *primals)
    except MissingRuleError:
        return True
    raise AssertionError(f"check_op: {op.qualname} has no derivative rule, but vjp did not refuse it")
