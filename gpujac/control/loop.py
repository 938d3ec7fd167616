"""Loops that vmap can run a different number of times in each lane: while_loop and fori_loop."""

from collections.abc import Callable
from functools import partial
from typing import Any

from gpujac import trees
from gpujac.control import masks
from gpujac.control.carry import Carry
from gpujac.core.aval import dtype_of, name_of
from gpujac.core.trace import Tracer, is_mapped
from gpujac.errors import DTypeError
from gpujac.ops import elementwise as ew


def while_loop(cond_fun: Callable, body_fun: Callable, init: Any) -> Any:
    """The state after `while cond_fun(state): state = body_fun(state)`.

    Args:
        cond_fun: callable of the state; returns a boolean (or number) of shape ().
        body_fun: callable of the state; returns the next one, of the same structure, shapes and
            dtypes. It may write into the state that it is given.
        init: pytree of arrays and numbers: the first state.

    Returns:
        The last state. Under vmap each lane runs its own number of iterations: a lane that is done
        keeps its state while the others go on.

    Raises:
        ShapeError: a predicate that is no scalar. StructureError, ShapeError, DTypeError: an
        iteration changes the state's structure, a shape or a dtype; the message names the place.

    Cost: the iterations; under vmap those of the longest lane, for all of them, and each waits for
    a GPU. Derivatives, reverse mode included, are those of the iterations that ran.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> def halvings(x):
        ...     return gj.while_loop(lambda s: s[0] > 1.0, lambda s: (s[0] / 2, s[1] + 1), (x, 0))
        >>> gj.vmap(halvings)(np.array([0.5, 5.0, 8.0]))
        (array([0.5  , 0.625, 1.   ]), array([0, 3, 3]))
    """
    masks.check_function("while_loop", "cond_fun", cond_fun)
    masks.check_function("while_loop", "body_fun", body_fun)
    carry = Carry("while_loop", init)
    while _advanced(carry, lambda: cond_fun(carry.tree()), body_fun):
        pass
    return carry.tree()


def _advanced(carry: Carry, decide: Callable[[], Any], body: Callable) -> bool:
    """One iteration where the decision asks for one; False where no lane does."""
    flag = masks.decision(carry.what, "the predicate", decide())
    if isinstance(flag, bool):
        if flag:
            carry.replace(body(carry.tree()))
        return flag
    if not flag.any():
        return False
    if flag.every():
        carry.replace(body(carry.tree()))
        carry.leaves = [masks.unshared(x) for x in carry.leaves]  # as where some lanes are done
        return True
    state = trees.unflatten(carry.spec, flag.operands(carry.leaves))
    with flag.alone():
        new = body(state)
    carry.replace(new, flag.mask)
    return True


def fori_loop(lower: Any, upper: Any, body_fun: Callable, init: Any) -> Any:
    """The state after `for i in range(lower, upper): state = body_fun(i, state)`.

    Args:
        lower, upper: integers of shape (); under vmap they may differ between lanes.
        body_fun: callable of the counter and the state, which returns the next state. The counter
            is a Python int; where `lower` differs between lanes a traced int64, of which the
            state keeps its dtype all the same.
        init: pytree of arrays and numbers: the first state.

    Returns:
        The last state; `init` where `upper` does not exceed `lower`.

    Raises:
        DTypeError, ShapeError: a bound that is no integer or no scalar; else as `while_loop`.

    Cost: as `while_loop`; bounds that are the same in all lanes never wait for a GPU.

    Example:
        >>> import gpujac as gj
        >>> power = lambda x: gj.fori_loop(0, 3, lambda i, y: y * x, 1.0)
        >>> float(gj.grad(power)(2.0))
        12.0
    """
    masks.check_function("fori_loop", "body_fun", body_fun)
    first = _counter(lower)
    end = masks.integer("fori_loop", "upper", upper)
    counted = isinstance(first, Tracer)
    carry = Carry("fori_loop", init, counted)
    if not is_mapped(end) and not counted:
        for i in range(first, end):
            carry.replace(body_fun(i, carry.tree()))
        return carry.tree()
    i, end = _bound(first), _bound(end)
    while _advanced(carry, partial(ew.less, i, end), partial(body_fun, i)):
        # a lane that is done does not count on: past the last integer it would begin again
        i = ew.where(ew.less(i, end), ew.add(i, 1), i) if counted else i + 1
    return carry.tree()


def _counter(lower: Any) -> Any:
    """The first counter; an error where it lies beyond int64."""
    i = masks.integer("fori_loop", "lower", lower)
    narrow = not isinstance(i, Tracer) or name_of(dtype_of(lower)) != "uint64"
    if narrow or not masks.Lanes(ew.greater(lower, masks.MOST)).any():
        return i
    raise DTypeError(f"fori_loop: lower is uint64 and beyond {masks.MOST}, the last of the counters, in some lane")


def _bound(i: Any) -> Any:
    """A bound that int64 holds."""
    return i if isinstance(i, Tracer) else min(max(i, -masks.MOST - 1), masks.MOST)
