"""Derivatives that keep less and compute more: `checkpoint` and its policies."""

from collections.abc import Callable, Collection
from functools import wraps
from typing import Any

from gpujac import trees
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import is_array
from gpujac.control import masks
from gpujac.control.again import Again, Repeated, mapped_levels
from gpujac.core.aval import dtype_of, is_differentiable, shape_of
from gpujac.core.op_ranges import watched
from gpujac.core.trace import Tracer, innermost, open_traces
from gpujac.errors import ArgumentError, ArgumentTypeError
from gpujac.ops.contract import Contract
from gpujac.ops.naming import named
from gpujac.transforms import flatten as fl
from gpujac.transforms.linearize import LinearizeTrace
from gpujac.transforms.tape import Policy, Tape, TapeTrace, ValuelessError


def checkpoint(f: Callable, *, policy: Any = None) -> Callable:
    """`f` whose intermediate results are computed again in the sweep instead of being kept.

    Args:
        f: callable of pytrees; keyword arguments and arguments that are no arrays pass through.
        policy: what is kept besides the inputs: None or "nothing"; "matmuls", the results of
            contractions (matmul, dot, einsum, ...); "everything", as without `checkpoint`;
            `gpujac.control.names("a", "b")`, what `gpujac.control.checkpoint_name` gave one of
            these names; or a callable (operation, name or None) -> bool.

    Returns:
        A function with the values and derivatives of `f`, under every transform and without one. What
        `f` writes into its arguments stays inside, and its outputs share no memory with them, with
        each other or with what `f` captured.

    Raises:
        ArgumentError, ArgumentTypeError: an unknown policy.

    Cost: `f` itself runs once, on copies of plain arrays, and plain arrays among its outputs are copied.
    Each sweep (one per chunk of a Jacobian) does its operations once more, those of the policy excepted;
    under `jvp` inside of a reverse transform they are done twice at once. Kept are the inputs, the traced
    arrays that `f` captured, what the policy says, and plain arrays that `f` made without its inputs
    (random numbers, say: a generator is not asked again).

    Source: Griewank & Walther, Evaluating Derivatives (2nd edition, 2008), chapter 12.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> block = gj.checkpoint(lambda x: np.tanh(np.sin(x) * 2.0))
        >>> gj.grad(lambda x: block(block(x)).sum())(np.array([0.0, 1.0])).round(4)
        array([4.    , 0.0247])
    """
    fl.check_callable("checkpoint", f)
    keeps = _policy(policy)

    @wraps(f, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        levels = [t for t in open_traces() if isinstance(t, LinearizeTrace)]
        if not levels or keeps is None:
            return _kept(f, args, kwargs)
        try:
            return _taped(f, args, kwargs, keeps, levels[0])
        except ValuelessError:  # a linear function is recorded: there is nothing to keep
            return _kept(f, args, kwargs)

    return checkpointed


def checkpoint_name(x: Any, name: str) -> Any:
    """`x` itself, under a name that a policy of `checkpoint` may ask for.

    Args:
        x: array or traced array (any shape).
        name: any text.

    Returns:
        The same values.

    Raises:
        ArgumentTypeError: `name` is no text.

    Cost: none.

    Example:
        >>> import gpujac as gj
        >>> from gpujac.control import checkpoint_name, names
        >>> f = gj.checkpoint(lambda x: checkpoint_name(x * x, "square") * x, policy=names("square"))
        >>> float(gj.grad(f)(2.0))
        12.0
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"checkpoint_name: name={name!r} is a {type(name).__name__}; give a text")
    return named(name)(x) if isinstance(x, Tracer) else x


def names(*wanted: str) -> Policy:
    """The policy of `checkpoint` that keeps what `checkpoint_name` gave one of these names.

    Args:
        wanted: texts.

    Returns:
        A policy.

    Raises:
        ArgumentTypeError: something is no text.

    Cost: none.

    Example:
        >>> from gpujac.control import names
        >>> names("a", "b")("checkpoint_name", "a")
        True
    """
    for name in wanted:
        if not isinstance(name, str):
            raise ArgumentTypeError(f"names: {name!r} is a {type(name).__name__}; give texts")
    return _Among(frozenset(wanted))


class _Among:
    """Whether an array has one of these names."""

    def __init__(self, wanted: Collection[str]) -> None:
        self.wanted = wanted

    def __call__(self, operation: str, name: str | None) -> bool:
        return name in self.wanted


_POLICIES: dict[str, Policy | None] = {
    "nothing": lambda operation, name: False,
    "matmuls": lambda operation, name: operation == Contract.name,
    "everything": None,
}


def _policy(policy: Any) -> Policy | None:
    """The policy as a function; None keeps everything."""
    if policy is None:
        return _POLICIES["nothing"]
    if isinstance(policy, str):
        if policy in _POLICIES:
            return _POLICIES[policy]
        raise ArgumentError(
            f'checkpoint: policy={policy!r}; choose "nothing", "matmuls" or "everything", '
            "gpujac.control.names(...), or give a function"
        )
    if not callable(policy):
        raise ArgumentTypeError(
            f"checkpoint: policy={policy!r} is a {type(policy).__name__}; give a text, "
            "gpujac.control.names(...), or a function of an operation's name and an array's name"
        )
    return policy


def _kept(f: Callable, args: tuple, kwargs: dict) -> Any:
    """The call of `f` as it is, with the writes and the ownership that it would have on a tape."""
    leaves, spec = trees.flatten((args, kwargs))
    own, named = trees.unflatten(spec, [masks.unshared(x) for x in leaves])
    return trees.map(masks.unshared, f(*own, **named))


def _taped(f: Callable, args: tuple, kwargs: dict, keeps: Policy, outermost: Any) -> Any:
    """The call of `f` with its operations on a tape."""
    leaves, spec = trees.flatten((args, kwargs))
    trace = watched(TapeTrace)(fl.name_of(f), keeps, outermost.kept)
    try:
        own, named = trees.unflatten(spec, [trace.input(x) if _is_input(x) else masks.unshared(x) for x in leaves])
        flat, out = trees.flatten(f(*own, **named))
        results = [y for y in flat if _is_result(y, trace)]
        tape = Tape(trace, [y.aux for y in results])
    finally:
        trace.close()
    operands = [trace.operands[slot] for slot in tape.operands]
    first = [y.value for y in results] + [trace.saved[slot] for slot in tape.saved]
    op = Repeated(Again(trace.origin, tape.play, len(tape.saved)), first, mapped_levels(operands))
    try:
        ys = iter(op(*operands) if operands else first)
    finally:
        op.first = None
    done = [next(ys) if _is_result(y, trace) else _constant(y, trace) for y in flat]
    return trees.unflatten(out, [masks.unshared(y) for y in done])


def _is_input(x: Any) -> bool:
    """Whether a derivative could be asked for by this argument."""
    if isinstance(x, Tracer):
        return is_differentiable(x.dtype)
    return bool(shape_of(x)) and is_array(x) and is_differentiable(dtype_of(x))


def _is_result(y: Any, trace: TapeTrace) -> bool:
    """Whether an output is computed from what the function got."""
    return isinstance(y, TracedArray) and y.owner is trace and y.aux is not None and is_differentiable(y.dtype)


def _constant(y: Any, trace: TapeTrace) -> Any:
    """An output without a derivative, in the hands of the transform around."""
    if not (isinstance(y, TracedArray) and y.owner is trace):
        return y
    around = innermost()
    return y.value if around is None or y.aux is not None else around.boxed(y.value)
