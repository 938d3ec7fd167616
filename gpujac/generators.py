"""Random generators of NumPy and CuPy inside vmap: their draws follow the mode `randomness`."""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import indexing
from gpujac.array import shape as sh
from gpujac.array.traced import TracedArray
from gpujac.backends.draws import is_generator, method_of
from gpujac.backends.host import SCALARS
from gpujac.core.aval import shape_of
from gpujac.core.trace import Tracer, payload
from gpujac.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConcretizationError,
    DispatchError,
    MutationError,
    ShapeError,
)
from gpujac.ops.batching import as_shape, move_axis
from gpujac.transforms.lanes import LaneTrace, Tape, open_vmaps

# Distributions by the names of their parameters; size is the argument behind them.
_PARAMETERS = {
    "random": (), "standard_normal": (), "standard_exponential": (), "standard_cauchy": (),
    "random_sample": (), "normal": ("loc", "scale"), "uniform": ("low", "high"), "logistic": ("loc", "scale"),
    "laplace": ("loc", "scale"), "gumbel": ("loc", "scale"), "exponential": ("scale",), "rayleigh": ("scale",),
    "standard_gamma": ("shape",), "gamma": ("shape", "scale"), "beta": ("a", "b"), "poisson": ("lam",),
    "binomial": ("n", "p"), "negative_binomial": ("n", "p"), "geometric": ("p",), "chisquare": ("df",),
    "f": ("dfnum", "dfden"), "standard_t": ("df",), "lognormal": ("mean", "sigma"), "pareto": ("a",),
    "power": ("a",), "weibull": ("a",), "wald": ("mean", "scale"), "triangular": ("left", "mode", "right"),
    "vonmises": ("mu", "kappa"), "zipf": ("a",), "logseries": ("p",), "hypergeometric": ("ngood", "nbad", "nsample"),
    "noncentral_chisquare": ("df", "nonc"), "integers": ("low", "high"), "randint": ("low", "high"),
}  # fmt: skip
_VECTORS = {"dirichlet": ("alpha",), "multinomial": ("n", "pvals"), "multivariate_normal": ("mean", "cov")}
_DIMENSIONS = ("rand", "randn")  # RandomState's: the shape is the positional arguments
_BEHIND_SIZE = {
    "multivariate_normal": ("check_valid", "tol"),
    "integers": ("dtype", "endpoint"), "random": ("dtype", "out"), "standard_normal": ("dtype", "out"),
    "standard_gamma": ("dtype", "out"), "standard_exponential": ("dtype", "method", "out"),
}  # fmt: skip
# The standard draw that a draw with parameters is made of: how, and from which parameters.
_SHIFTED: dict[str, tuple[Callable, tuple]] = {
    "normal": (lambda z, loc, scale: loc + scale * z, (0.0, 1.0)),
    "logistic": (lambda z, loc, scale: loc + scale * z, (0.0, 1.0)),
    "laplace": (lambda z, loc, scale: loc + scale * z, (0.0, 1.0)),
    "gumbel": (lambda z, loc, scale: loc + scale * z, (0.0, 1.0)),
    "uniform": (lambda u, low, high: low + (high - low) * u, (0.0, 1.0)),
    "exponential": (lambda z, scale: scale * z, (1.0,)),
    "rayleigh": (lambda z, scale: scale * z, (1.0,)),
}


def wrap(generator: Any) -> "Wrapped":
    """A random generator whose draws inside `gpujac.vmap` follow its mode `randomness`.

    Outside of vmap a call is the generator's own. Inside, "error" raises; "same" is one draw that
    all lanes share; "different" is one draw with the lanes in front, as `size=(lanes, *size)` on
    the generator itself. A chunked vmap draws what an unchunked one does, and leaves the generator
    in the same state. Parameters of normal, uniform, logistic, laplace, gumbel, exponential and
    rayleigh may be traced: derivatives flow through them.

    A generator that is not wrapped knows nothing of vmap: it draws once, and all lanes share it.

    Args:
        generator: numpy.random.Generator or RandomState, cupy.random.Generator or RandomState; the
            module numpy.random stands for its global state.

    Returns:
        An object with the methods of the generator. CuPy's Generator has no normal, permutation and
        choice: here they are made of standard_normal, random and integers.

    Raises:
        ArgumentTypeError: `generator` has no methods of a generator. A draw raises ArgumentError
            in the mode "error", and in "same" for parameters that differ between lanes,
            MutationError for `out=` and `shuffle`, DispatchError for a method without meaning here.

    Cost: per draw one call of the generator; chunks share it, so it is held until vmap returns.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> rng = gj.random.wrap(np.random.default_rng(0))
        >>> x = np.zeros(2)
        >>> gj.vmap(lambda x: x + rng.normal(), randomness="different")(x).round(4)
        array([ 0.1257, -0.1321])
    """
    if isinstance(generator, Wrapped) or not is_generator(generator):
        raise ArgumentTypeError(
            f"random.wrap: a {type(generator).__name__} is no random generator; give a numpy.random.Generator or "
            "RandomState, or one of CuPy's"
        )
    return Wrapped(generator)


class Wrapped:
    """What `wrap` returns: the methods of a generator, aware of vmap."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = method_of(self._generator, name)
        if not callable(found):
            return found

        def method(*args: Any, **kwargs: Any) -> Any:
            return _called(self._generator, name, args, kwargs)

        method.__name__ = name
        method.__doc__ = found.__doc__
        return method

    def __repr__(self) -> str:
        return f"gpujac.random.wrap({self._generator!r})"


def _called(generator: Any, name: str, args: tuple, kwargs: dict) -> Any:
    """A method call, inside vmap or not."""
    traces = open_vmaps()
    traced = any(isinstance(x, Tracer) for x in (*args, *kwargs.values()))
    if not traces and not traced:
        return method_of(generator, name)(*args, **kwargs)
    for trace in traces:
        if trace.lanes.randomness == "error":
            raise ArgumentError(
                f"random.wrap: {name} was called inside vmap of {trace.lanes.origin}, whose randomness is 'error': "
                'say vmap(..., randomness="same") for one draw that all lanes share, or "different"'
            )
    _check_out(name, kwargs)
    different = [t for t in traces if t.lanes.randomness == "different"]
    if name in ("permutation", "permuted"):
        return (_permutation if name == "permutation" else _permuted)(generator, different, *args, **kwargs)
    if name == "choice":
        return _chosen(generator, different, *args, **kwargs)
    names = _VECTORS.get(name, _PARAMETERS.get(name))
    if name in _DIMENSIONS:
        own = {"rand": "random_sample", "randn": "standard_normal"}[name]
        return _drawn(generator, own, different, {}, args, dict(kwargs))
    if names is None:
        if name == "shuffle":
            raise MutationError("random.wrap: shuffle works in place, on what all lanes share; use permutation")
        where = "inside vmap" if traces else "with traced arguments"
        raise DispatchError(f"random.wrap: {name} has no meaning {where}; call it outside and pass the result in")
    values, size, options = _bound(name, names, args, kwargs)
    _check_out(name, options)
    return _drawn(generator, name, different, values, size, options)


def _check_out(name: str, options: dict) -> None:
    if options.get("out") is not None:
        raise MutationError(f"random.wrap: {name} with out= writes into what all lanes share; assign the result")


def _bound(name: str, names: tuple, args: tuple, kwargs: dict) -> tuple[dict, Any, dict]:
    """Parameters by name, size, and the other options of a call."""
    known = (*names, "size", *_BEHIND_SIZE.get(name, ("dtype",)))
    if len(args) > len(known):
        raise ArgumentTypeError(f"random.wrap: {name} with {len(args)} arguments; it takes {', '.join(known)}")
    options = dict(zip(known, args, strict=False))
    twice = [n for n in options if n in kwargs]
    if twice:
        raise ArgumentTypeError(f"random.wrap: {name} with {twice[0]}= twice, by position and by name; give it once")
    options.update(kwargs)
    values = {n: options.pop(n) for n in names if n in options}
    return values, options.pop("size", None), options


def _drawn(generator: Any, name: str, different: list, values: dict, size: Any, options: dict) -> Any:
    """A draw of a distribution, one per lane of the traces in `different`."""
    traced = [n for n, v in values.items() if isinstance(v, Tracer)]
    size = _checked_size(name, size)
    if not traced and not (name in _SHIFTED and values and _in_a_loop()):
        if size is None and name in _PARAMETERS:
            size = np.broadcast_shapes(*(tuple(shape_of(c.lift(v))) for v in values.values()))
        return _shared(generator, name, different, values, size or (), options)
    _check_same(name, values, different)
    _check_agreed(name, values, different)
    shift = _SHIFTED.get(name)
    if shift is not None:
        make, defaults = shift
        parameters = [values.get(n, d) for n, d in zip(_PARAMETERS[name], defaults, strict=True)]
        if size is None:
            size = np.broadcast_shapes(*(tuple(shape_of(v)) for v in parameters))
        return make(_shared(generator, name, different, {}, size, options), *parameters)
    return _batched(generator, name, different, values, size, options)


def _in_a_loop() -> bool:
    """Whether a lane runs on plain values, where parameters that differ between lanes look like others."""
    return any(isinstance(t, LaneTrace) for t in open_vmaps())


def _checked_size(name: str, size: Any) -> tuple | None:
    if size is None:
        return None
    if not isinstance(size, (Tracer, int, tuple, list)) and shape_of(size):
        size = c.on_host(size).tolist()
    lengths = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    try:
        return tuple([operator.index(n) for n in lengths])
    except ConcretizationError:
        raise
    except TypeError:
        raise ArgumentTypeError(
            f"random.wrap: {name} with size={size!r}; use an int, a tuple of ints, or None"
        ) from None


def _check_same(name: str, values: dict, different: list) -> None:
    """Raise for parameters that differ between lanes which are to share one draw."""
    for trace in open_vmaps():
        for n, v in values.items():
            if trace not in different and _axis_in(v, trace) is not None:
                raise _differing(name, n, trace)


def _check_agreed(name: str, values: dict, different: list) -> None:
    """The same where lanes run one after the other, on plain values: by what the lane before asked for."""
    traces = open_vmaps()
    shared = [t for t in traces if isinstance(t, LaneTrace) and t not in different]
    if not shared or all([t.lanes.passes == 1 for t in traces]):
        return
    tape: Tape = traces[0].lanes.tape
    place = (tape.position, *[t.start for t in different])
    found = {n: _mark(v) for n, v in values.items()}
    known = tape.parameters.setdefault(place, found)
    for n, mark in found.items():
        if known.get(n, mark) != mark:
            raise _differing(name, n, shared[-1])


def _differing(name: str, parameter: str, trace: Any) -> ArgumentError:
    return ArgumentError(
        f"random.wrap: {name} in randomness='same' mode, but {parameter} differs between the lanes of vmap of "
        f"{trace.lanes.origin}; draw standard numbers and shift them, or use randomness='different'"
    )


def _mark(x: Any) -> Any:
    """What tells a parameter from others: the entries of an array, the text of anything else."""
    inner = payload(x)
    shape = getattr(inner, "shape", None)
    if isinstance(shape, tuple) and shape:
        return shape, c.on_host(inner).tobytes()
    return repr(x if inner is None else inner)


def _axis_in(x: Any, trace: Any) -> Any:
    while isinstance(x, Tracer):
        if x.owner is trace:
            return x.aux
        x = x.value
    return None


# ---------------------------------------------------------------- one draw for all lanes


def _shared(generator: Any, name: str, different: list, values: dict, size: tuple, options: dict) -> Any:
    """One draw with plain parameters, the lanes in front; entries of the lanes of this pass."""
    lead = tuple(t.lanes.total for t in different)

    def draw() -> Any:
        asked = {} if not lead and not size else {"size": (*lead, *size)}
        return method_of(generator, name)(**values, **asked, **options)

    signature: tuple = (name, lead, tuple(size))
    if _in_a_loop():
        signature += tuple([(n, _mark(c.lift(v))) for n, v in (*values.items(), *options.items())])
    return _placed(_taped(signature, draw), different)


def _taped(signature: tuple, draw: Callable) -> Any:
    """A draw, or where a later chunk asks, the one that the first chunk made at this place."""
    traces = open_vmaps()
    if all(t.lanes.passes == 1 for t in traces):
        if traces:
            traces[0].lanes.tape.untaped = True
        return draw()
    tape: Tape = traces[0].lanes.tape
    if tape.position == len(tape.draws):
        tape.draws.append((signature, draw()))
    known, found = tape.draws[tape.position]
    if known != signature:
        raise ShapeError(
            "random.wrap: the passes of a vmap in chunks or lanes must draw the same things in the same order, but a "
            f"later one asked for {signature[0]} of shape {signature[2]} where "
            f"the first asked for {known[0]} of shape {known[2]}, or with other parameters; "
            "use one pass, or keys (gpujac.random.key)"
        )
    tape.position += 1
    return found


def _placed(whole: Any, different: list) -> Any:
    """The lanes of this pass of a draw with all lanes in front, mapped in the traces, the outermost first."""
    if not different:
        return whole if type(whole) in SCALARS else whole.copy()  # a write into it must not reach the next pass
    key = tuple(t.start if isinstance(t, LaneTrace) else slice(t.start, t.start + t.size) for t in different)
    part = whole[key]
    for trace in different:
        if not isinstance(trace, LaneTrace):
            part = trace.tracer(part, -len(shape_of(part)))
    return part


def _in_turn(generator: Any, name: str, different: list, args: tuple, kwargs: dict, method: Any = None) -> Any:
    """Draws one after the other, for what has no size; `method` makes them where the generator's own does not."""
    lead = tuple(t.lanes.total for t in different)
    method = method_of(generator, name) if method is None else method

    def draw() -> Any:
        if not lead:
            return method(*args, **kwargs)
        rows = [method(*args, **kwargs) for _ in range(math.prod(lead))]
        if not rows:
            raise ArgumentError(f"random.wrap: {name} over no lanes; the shape of a draw is not known")
        return sh.reshape(sh.stack(rows), (*lead, *shape_of(rows[0])))

    marks = repr([_mark(x) for x in (*args, *kwargs.values())])
    return _placed(_taped((name, lead, marks), draw), different)


def _chosen(generator: Any, different: list, a: Any, size: Any = None, replace: bool = True, p: Any = None,
            axis: int = 0, **options: Any) -> Any:  # fmt: skip
    """Entries of `a` along an axis, or numbers below it: a draw of positions, and the entries there."""
    given, a, p = a, c.lift(a), c.lift(p)
    several = bool(shape_of(a))
    if isinstance(p, Tracer) or (isinstance(a, Tracer) and not several):
        raise DispatchError(
            f"random.wrap: choice with a traced {'p' if isinstance(p, Tracer) else 'number of entries'} has no "
            "meaning here; pass a plain one, or draw with keys (gpujac.random.uniform and searchsorted)"
        )
    count = shape_of(a)[c.axis_of(axis, len(shape_of(a)), "choice")] if several else a
    size = _checked_size("choice", size)
    if p is not None:
        options["p"] = p
    if replace:
        at = _shared(generator, "choice", different, {"a": count}, size or (), options)
    else:
        options.update(size=size, replace=False)
        at = _in_turn(generator, "choice", different, (count,), options)
    return indexing.take(c.lift(given, at), at, axis) if several else at


def _permutation(generator: Any, different: list, given: Any, axis: Any = 0) -> Any:
    """An array in random order along an axis: a draw of positions, and the entries there."""
    x = c.lift(given)
    if not shape_of(x):
        return _in_turn(generator, "permutation", different, (x,), {})
    at = c.axis_of(axis, len(shape_of(x)), "permutation")
    order = _in_turn(generator, "permutation", different, (shape_of(x)[at],), {})
    return indexing.take(c.lift(given, order), order, at)  # a list is an array of the generator's library


def _permuted(generator: Any, different: list, given: Any, axis: Any = None, out: Any = None) -> Any:
    """An array with the entries of each line along an axis, or all of them, in a random order of its own."""
    _check_out("permuted", {"out": out})
    size = tuple(shape_of(c.lift(given)))
    if not size:
        raise ArgumentError("random.wrap: permuted of a number; give an array, or use permutation")
    rows, at = (size, c.axis_of(axis, len(size), "permuted")) if axis is not None else ((math.prod(size),), 0)

    def draw(rows: tuple, at: int) -> Any:
        numbers = np.arange(rows[at]).reshape([n if i == at % len(rows) else 1 for i, n in enumerate(rows)])
        return method_of(generator, "permuted")(np.broadcast_to(numbers, rows), axis=at)

    order = _in_turn(generator, "permuted", different, (rows, at), {}, draw)
    return sh.reshape(indexing.take_along_axis(sh.reshape(c.lift(given, order), rows), order, at), size)


# ---------------------------------------------------------------- parameters that differ between lanes


def _batched(generator: Any, name: str, different: list, values: dict, size: Any, options: dict) -> Any:
    """A draw whose parameters differ between lanes: all lanes at once, the parameters with them in front."""
    if name not in _PARAMETERS and name not in _VECTORS:
        raise DispatchError(f"random.wrap: {name} with traced parameters has no meaning here; pass plain ones")
    if any(t.lanes.passes > 1 and not isinstance(t, LaneTrace) for t in different):
        raise ArgumentError(
            f"random.wrap: {name} with parameters that differ between lanes, in chunks: the parameters of later chunks "
            "are not known at the first, so the numbers would not be those of one pass; use chunk_size=None, or keys "
            "(gpujac.random.key)"
        )
    method = method_of(generator, name)
    if name in _VECTORS:
        return _placed(_row_by_row(method, name, different, values, size, options), different)
    size = np.broadcast_shapes(*(tuple(shape_of(v)) for v in values.values())) if size is None else size
    plain = {n: _with_lanes(name, n, v, different, len(size)) for n, v in values.items()}
    lead = tuple(t.lanes.total for t in different)
    return _placed(method(**plain, size=(*lead, *size), **options), different)


def _row_by_row(method: Callable, name: str, different: list, values: dict, size: Any, options: dict) -> Any:
    """Draws of vectors, whose parameters have axes of their own, one lane after the other."""
    lead = tuple(t.lanes.total for t in different)
    plain = {n: _with_lanes(name, n, v, different, len(shape_of(v))) for n, v in values.items()}
    rows = []
    for lane in np.ndindex(lead):
        mine = {n: v[tuple(min(i, m - 1) for i, m in zip(lane, v.shape, strict=False))] for n, v in plain.items()}
        rows.append(method(**mine, size=size, **options))
    if not rows:
        raise ArgumentError(f"random.wrap: {name} over no lanes; the shape of a draw is not known")
    return sh.reshape(sh.stack(rows), (*lead, *shape_of(rows[0])))


def _with_lanes(name: str, parameter: str, x: Any, different: list, rank: int) -> Any:
    """A plain parameter with an axis per trace in front (1 where it is not mapped), then `rank` axes."""
    shape = (1,) * (rank - len(shape_of(x))) + tuple(shape_of(x))
    x = as_shape(x if shape_of(x) or isinstance(x, Tracer) else np.asarray(x), shape)
    for trace in reversed(different):
        mine = isinstance(x, TracedArray) and x.owner is trace
        x, axis = (x.value, x.aux) if mine else (x, None)
        wide = tuple(shape_of(x))
        x = as_shape(x, (1, *wide)) if axis is None else move_axis(x, axis, -len(wide))
    if isinstance(x, Tracer):
        raise ConcretizationError(
            f"random.wrap: {name} has no derivative by {parameter} ({x.owner.transform} of {x.owner.origin} follows "
            "it); use gpujac.value on it, or a distribution that is a shifted standard one (normal, uniform, ...)"
        )
    return x
