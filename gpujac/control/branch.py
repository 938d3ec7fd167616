"""Branches that vmap can take differently in each lane: cond and switch."""

from collections.abc import Callable, Sequence
from typing import Any

from gpujac import trees
from gpujac.backends.choose import WRITABLE
from gpujac.control import masks
from gpujac.core.trace import Tracer
from gpujac.errors import ArgumentError, ArgumentTypeError
from gpujac.ops import elementwise as ew


def cond(pred: Any, true_fun: Callable, false_fun: Callable, *operands: Any) -> Any:
    """`true_fun(*operands)` where the predicate holds, else `false_fun(*operands)`.

    Args:
        pred: boolean (or number, true unless zero) of shape (); under vmap one per lane.
        true_fun, false_fun: callables of the operands that return a pytree of arrays.
        *operands: pytrees handed to the branch. What a branch reads may also be captured, but an
            overflow in a lane of the other branch stays out of derivatives of operands only. What
            the branch writes into an operand stays in the branch.

    Returns:
        The result of the branch. Where lanes of vmap decide differently both run on all lanes and
        their results are chosen between, entry by entry; where they agree one runs. Loops and
        branches inside a branch go by the lanes that take it. Arrays in it are new: a write into
        one reaches no operand and nothing captured.

    Raises:
        ShapeError: a predicate that is no scalar. StructureError, ShapeError, DTypeError: lanes
        decide differently, and the results differ in structure, shape or dtype.

    Cost: one branch, or both under vmap with lanes that differ, and a copy of plain arrays among
    operands and results (none of captured ones). Under vmap a GPU is waited for.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> root = lambda x: gj.cond(x > 0, np.sqrt, lambda x: 0 * x, x)
        >>> gj.vmap(gj.grad(root))(np.array([4.0, 0.0, -1.0]))
        array([0.25, 0.  , 0.  ])
    """
    masks.check_function("cond", "true_fun", true_fun)
    masks.check_function("cond", "false_fun", false_fun)
    flag = masks.decision("cond", "the predicate", pred)
    if isinstance(flag, bool):
        return _alone(true_fun if flag else false_fun, operands)
    other = flag.others()
    if not other.any():
        return _alone(true_fun, operands)
    if not flag.any():
        return _alone(false_fun, operands)
    results = [_masked(flag, true_fun, operands), _masked(other, false_fun, operands)]
    return masks.chosen("cond", flag.mask, ("true_fun", "false_fun"), *results)


def _alone(f: Callable, operands: tuple) -> Any:
    """The only branch that runs, with the operands and results that it would have beside others.

    Whatever the lanes of vmap decide, a write into an operand stays in the branch, and one into the
    result reaches nothing else.
    """
    return _own(f(*[_own(x) for x in operands]))


def _own(tree: Any) -> Any:
    """The tree with arrays that share memory with nothing."""
    bare = isinstance(tree, Tracer) or type(tree) in WRITABLE
    return masks.unshared(tree) if bare else trees.map(masks.unshared, tree)


def _masked(lanes: masks.Lanes, f: Callable, operands: tuple) -> Any:
    """A branch on all lanes, for some of them."""
    leaves, spec = trees.flatten(operands)
    own = trees.unflatten(spec, lanes.operands(leaves))
    with lanes.alone():
        return f(*own)


def switch(index: Any, branches: Sequence[Callable], *operands: Any) -> Any:
    """`branches[index](*operands)`, the index limited to the branches there are.

    Args:
        index: integer of shape (); under vmap one per lane. Below 0 the first branch is taken,
            beyond the end the last.
        branches: callables of the operands.
        *operands: pytrees handed to the branch, as in `cond`.

    Returns:
        The result of the branch; under vmap as `cond`, with the branches that some lane takes.

    Raises:
        ArgumentError: no branches. DTypeError, ShapeError: an index that is no integer or no
        scalar; else as `cond`.

    Cost: one branch; under vmap each branch that some lane takes, and a GPU is waited for.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> f = lambda i, x: gj.switch(i, [np.sin, np.cos, lambda x: -x], x)
        >>> gj.vmap(f)(np.array([2, 1, 7]), np.array([1.0, 0.0, 3.0]))
        array([-1.,  1., -3.])
    """
    functions = _functions(branches)
    at = masks.integer("switch", "the index", index)
    last = len(functions) - 1
    if not isinstance(at, Tracer):
        return _alone(functions[min(max(at, 0), last)], operands)
    at = ew.clip(at, 0, last)
    host = masks.on_host(at)
    lanes = [masks.Lanes(ew.equal(at, i), None if host is at else ew.equal(host, i)) for i in range(last + 1)]
    taken = [i for i in range(last + 1) if lanes[i].any()] or [0]
    if len(taken) == 1:
        return _alone(functions[taken[0]], operands)
    result = _masked(lanes[taken[0]], functions[taken[0]], operands)
    for i in taken[1:]:
        names = (f"branches[{i}]", f"branches[{taken[0]}]")
        result = masks.chosen("switch", lanes[i].mask, names, _masked(lanes[i], functions[i], operands), result)
    return result


def _functions(branches: Any) -> list[Callable]:
    if not isinstance(branches, Sequence):
        raise ArgumentTypeError(f"switch: branches is a {type(branches).__name__}; give a list of functions")
    if not branches:
        raise ArgumentError("switch: branches is empty; give at least one function")
    for i, f in enumerate(branches):
        masks.check_function("switch", f"branches[{i}]", f)
    return list(branches)
