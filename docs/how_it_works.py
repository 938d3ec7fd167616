"""How gpujac works: its core from nothing, in about 350 lines that run.

Read it from top to bottom. It builds a tiny library that takes derivatives of plain NumPy code
the way gpujac does: the same walls, the same names, none of the breadth. The last part compares
every transform with finite differences and with gpujac itself; the tests run this file.

    python docs/how_it_works.py

What the tiny library leaves out is said where it is left out, with the file of gpujac that has it.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import gpujac as gj

# ---------------------------------------------------------------------------------------------
# 1. Operations
#
# A derivative is made of derivatives of single operations. So the first thing to write down is
# what an operation is: something that can be evaluated, plus rules that say how transforms see it.
#
# Calling an operation on plain arrays evaluates it. Calling it on a *tracer* (a value that some
# transform watches, part 2) hands the operation to that transform instead. Where several
# transforms are open, the one that was opened last (the highest level) goes first; while it works
# it calls further operations on what it finds inside its tracers, and those reach the next one.
# Nothing else makes transforms nest. (gpujac: core/op.py, core/trace.py)


def shape_of(x: Any) -> tuple:
    """The shape of an array, a number or a tracer."""
    return getattr(x, "shape", ())


class Op:
    """An operation on arrays; `evaluate` computes it, subclasses carry its rules."""

    def __call__(self, *xs: Any) -> Any:
        traces = [x.trace for x in xs if isinstance(x, Tracer)]
        if not traces:
            return self.evaluate(*xs)
        return self.bind(max(traces, key=lambda trace: trace.level), xs)


# There are two kinds here (gpujac has four). The first is elementwise. Its derivative is one
# number per entry and operand, the *slope*: if y = sin(x), a small step t in x moves y by
# cos(x) * t. One row of a table says everything about such an operation. None means a slope of 1.


class Pointwise(Op):
    """An elementwise NumPy function and its slopes, each a function of (*operands, result)."""

    def __init__(self, name: str, *slopes: Any) -> None:
        self.name = name
        self.evaluate = getattr(np, name)
        self.slopes = slopes

    def bind(self, trace: Any, xs: tuple) -> Any:
        return trace.pointwise(self, xs)


add = Pointwise("add", None, None)
subtract = Pointwise("subtract", None, lambda a, b, y: -1.0)
multiply = Pointwise("multiply", lambda a, b, y: b, lambda a, b, y: a)
divide = Pointwise("divide", lambda a, b, y: 1.0 / b, lambda a, b, y: -y / b)
power = Pointwise("power", lambda a, b, y: b * power(a, b - 1), lambda a, b, y: y * log(a))
negative = Pointwise("negative", lambda x, y: -1.0)
exp = Pointwise("exp", lambda x, y: y)
log = Pointwise("log", lambda x, y: 1.0 / x)
sin = Pointwise("sin", lambda x, y: cos(x))
cos = Pointwise("cos", lambda x, y: -sin(x))
tanh = Pointwise("tanh", lambda x, y: 1.0 - y * y)

# The second kind moves entries around, drops them, repeats them or adds them up. Such operations
# are linear, so each is its own derivative. What it owes instead is its *transpose*. A linear
# operation is a matrix, and its transpose is that matrix mirrored: where `Slice` reads entries
# out of an array, its transpose `Pad` puts them back into a field of zeros. Each transpose is
# again one of the operations: spread <-> total, slice <-> pad, reshape and swap with themselves.
#
# `src` and `dst` are the *trailing* shapes before and after. Any axes in front of them are left
# alone. This one rule will give us both chunks of a Jacobian and vmap of every structural
# operation without another line of code. (gpujac: ops/structure.py)


@dataclass(frozen=True)
class Linear(Op):
    """Takes trailing axes of shape `src` to trailing axes of shape `dst`."""

    src: tuple
    dst: tuple

    def bind(self, trace: Any, xs: tuple) -> Any:
        return trace.linear(self, *xs)

    def lead(self, x: Any) -> tuple:
        return x.shape[: len(x.shape) - len(self.src)]


class Reshape(Linear):
    """The same entries under another shape."""

    def evaluate(self, x: Any) -> Any:
        return x.reshape(self.lead(x) + self.dst)

    @property
    def transposed(self) -> Linear:
        return Reshape(self.dst, self.src)


class Spread(Linear):
    """NumPy's broadcasting from `src` to `dst`: entries are repeated."""

    def evaluate(self, x: Any) -> Any:
        lead = self.lead(x)
        ones = (1,) * (len(self.dst) - len(self.src))
        return np.broadcast_to(x.reshape(lead + ones + self.src), lead + self.dst)

    @property
    def transposed(self) -> Linear:
        return Total(self.dst, self.src)


class Total(Linear):
    """The way back: adds up the entries that broadcasting from `dst` to `src` makes equal."""

    def evaluate(self, x: Any) -> Any:
        lead = self.lead(x)
        extra = len(self.src) - len(self.dst)
        padded = (1,) * extra + self.dst
        gone = [i for i, n in enumerate(self.src) if i < extra or padded[i] != n]
        return x.sum(axis=tuple(len(lead) + i for i in gone)).reshape(lead + self.dst)

    @property
    def transposed(self) -> Linear:
        return Spread(self.dst, self.src)


@dataclass(frozen=True)
class Slice(Linear):
    """Entries `start`, `start + 1`, ... along `axis`, which is counted from the end."""

    axis: int
    start: int

    def key(self, length: int) -> tuple:
        rest = (slice(None),) * (-self.axis - 1)
        return (..., slice(self.start, self.start + length), *rest)

    def evaluate(self, x: Any) -> Any:
        return x[self.key(self.dst[self.axis])]

    @property
    def transposed(self) -> Linear:
        return Pad(self.dst, self.src, self.axis, self.start)


class Pad(Slice):
    """Puts an array into a larger one of zeros."""

    def evaluate(self, x: Any) -> Any:
        out = np.zeros(self.lead(x) + self.dst)
        out[self.key(self.src[self.axis])] = x
        return out

    @property
    def transposed(self) -> Linear:
        return Slice(self.dst, self.src, self.axis, self.start)


class Swap(Linear):
    """The last two axes exchanged."""

    def evaluate(self, x: Any) -> Any:
        return x.swapaxes(-1, -2)

    @property
    def transposed(self) -> Linear:
        return Swap(self.dst, self.src)


# ---------------------------------------------------------------------------------------------
# 2. Tracers
#
# A transform runs the user's function on tracers instead of arrays. A tracer must look like an
# array, so that code written for NumPy does not notice: it has a shape, operators and methods, and
# NumPy's own functions ask it what to do through two protocols (`__array_ufunc__` for elementwise
# functions, `__array_function__` for the rest). All these doors lead to the operations of part 1.
#
# What a tracer holds is its *payload*: the transform it belongs to, a value, and one extra thing
# that only the transform understands. (gpujac: array/traced.py, array/protocols.py)

LEVELS = itertools.count()  # one counter for all transforms: later means higher


class Trace:
    """One transform at work."""

    def __init__(self) -> None:
        self.level = next(LEVELS)

    def split(self, xs: tuple) -> tuple[list, list]:
        """Values and extras; what is not ours is a constant to us, with the extra None."""
        mine = [isinstance(x, Tracer) and x.trace is self for x in xs]
        values = [x.value if own else x for x, own in zip(xs, mine, strict=True)]
        return values, [x.extra if own else None for x, own in zip(xs, mine, strict=True)]


class Tracer:
    """A value that a transform watches."""

    def __init__(self, trace: Trace, value: Any, extra: Any, shape: tuple) -> None:
        self.trace, self.value, self.extra, self.shape = trace, value, extra, shape

    def __array_ufunc__(self, ufunc: Any, method: str, *xs: Any) -> Any:
        return UFUNCS[ufunc](*xs)

    def __array_function__(self, function: Any, types: Any, args: tuple, kwargs: dict) -> Any:
        return FUNCTIONS[function](*args, **kwargs)

    def __bool__(self) -> bool:
        return bool(self.trace.concrete(self))

    def __gt__(self, other: Any) -> Any:
        return self.trace.concrete(self) > other

    def sum(self, axis: int | None = None) -> Any:
        if axis is None:
            return Total(self.shape, ())(self)
        assert axis == -1, "only the last axis here"
        thin = self.shape[:-1] + (1,)
        return Reshape(thin, self.shape[:-1])(Total(self.shape, thin)(self))

    def __getitem__(self, key: Any) -> Any:
        cut = slice_of(self.shape, key)
        return Reshape(cut.dst, ())(cut(self)) if isinstance(key, int) else cut(self)

    # Python's `x[i] = v` has to change what the name x means. Arrays here never change, so it
    # computes the array after the write, and the tracer takes that over as its payload. (In gpujac
    # views of the array see the write, as in NumPy: docs/decisions/0002-in-place-writes.md)
    def __setitem__(self, key: Any, new: Any) -> None:
        cut = slice_of(self.shape, key)
        old = cut(self)
        after = self + cut.transposed(Spread(shape_of(new - old), cut.dst)(new - old))
        self.trace, self.value, self.extra = after.trace, after.value, after.extra


for _name, _op in {"add": add, "sub": subtract, "mul": multiply, "truediv": divide,
                   "pow": power}.items():  # fmt: skip
    setattr(Tracer, f"__{_name}__", lambda x, y, op=_op: op(x, y))
    setattr(Tracer, f"__r{_name}__", lambda x, y, op=_op: op(y, x))
Tracer.__neg__ = lambda x: negative(x)


def slice_of(shape: tuple, key: Any) -> Slice:
    """The operation behind `x[key]` of a one-dimensional array."""
    (n,) = shape
    start, stop, _ = slice(key, key + 1 or None).indices(n) if isinstance(key, int) else key.indices(n)
    return Slice(shape, (stop - start,), -1, start)


# A matrix product of a matrix and a vector needs nothing new: multiply with broadcasting, then add
# up. (gpujac has one op for all products of this kind, which calls BLAS: ops/contract.py)


def matmul(a: Any, b: Any) -> Any:
    """a @ b for a vector b."""
    return multiply(a, b).sum(-1)


def stack(scalars: list) -> Any:
    """Scalars as one vector: each is put into its place of a field of zeros."""
    n = len(scalars)
    placed = [Pad((1,), (n,), -1, i)(Reshape((), (1,))(x)) for i, x in enumerate(scalars)]
    return sum(placed[1:], placed[0])


def zeros_like(x: Tracer) -> Tracer:
    """Zeros that traced values can be written into: a tracer without a derivative yet."""
    return Tracer(x.trace, np.zeros(x.shape), None, x.shape)


UFUNCS = {getattr(np, op.name): op for op in (add, subtract, multiply, divide, power, negative, exp,
                                              log, sin, cos, tanh)}  # fmt: skip
UFUNCS[np.matmul] = matmul
FUNCTIONS = {np.stack: stack, np.zeros_like: zeros_like, np.sum: Tracer.sum}

# ---------------------------------------------------------------------------------------------
# 3. Linearize: run once, write down the linear half
#
# Near one point every smooth function is a linear one: f(x + t) = f(x) + J t + (tiny). The
# function behind t -> J t is what all derivative transforms are about, and here is how to get it.
# Run f on tracers that hold the real value and, as their extra, the *name of a tangent* (a number
# into a list). Every operation computes its value as always, and also appends one line to a list:
# how the tangent of the result comes from the tangents of the operands.
#
# The list is a *flat linear program*. It has no branches and no calls, and its lines are of two
# kinds:
#
#     Scale   tangent = c1 * t1 + c2 * t2 ...      the slopes of a pointwise op, already numbers
#     Apply   tangent = op(t)                      a structural op
#
# Since values are at hand while f runs, `if x > 0` just works: it asks the value, and the program
# holds the branch that was taken. (gpujac: transforms/linearize.py, program/ir.py)


class Scale(NamedTuple):
    """A sum of coefficients times variables, elementwise."""

    reads: list
    coefs: list


class Apply(NamedTuple):
    """A structural op of one variable."""

    reads: list
    op: Linear


class Program(NamedTuple):
    """Lines in order; the first `inputs` variables enter, `output` leaves (None: a constant)."""

    lines: list
    inputs: int
    output: int | None


class LinearizeTrace(Trace):
    """Tracers hold (value, number of the line that defines their tangent)."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list = []

    def emit(self, line: Any, y: Any) -> Tracer:
        self.lines.append(line)
        return Tracer(self, y, len(self.lines) - 1, shape_of(y))

    def pointwise(self, op: Pointwise, xs: tuple) -> Tracer:
        values, variables = self.split(xs)
        y = op(*values)  # an operation again: the next lower trace sees it, or NumPy computes it
        reads, coefs = [], []
        for x, variable, slope in zip(values, variables, op.slopes, strict=True):
            if variable is not None:
                reads.append(self.spread(variable, shape_of(x), shape_of(y)))
                coefs.append(None if slope is None else slope(*values, y))
        return self.emit(Scale(reads, coefs), y) if reads else Tracer(self, y, None, shape_of(y))

    # NumPy broadcasts silently. On the tangent this is one explicit line, so that no rule ever has
    # to think of shapes. (gpujac does the same for changes of dtype: ops/agree.py)
    def spread(self, variable: int, shape: tuple, new: tuple) -> int:
        if shape == new:
            return variable
        self.lines.append(Apply([variable], Spread(shape, new)))
        return len(self.lines) - 1

    def linear(self, op: Linear, x: Tracer) -> Tracer:
        y = op(x.value)
        return Tracer(self, y, None, y.shape) if x.extra is None else self.emit(Apply([x.extra], op), y)

    def concrete(self, x: Tracer) -> Any:
        return x.value


def linearize(f: Any, *xs: Any) -> tuple[Any, Program]:
    """The value f(*xs) and the linear program of its derivative there. Runs f once."""
    trace = LinearizeTrace()
    tracers = [trace.emit(None, x) for x in xs]
    (y,), (output,) = trace.split((f(*tracers),))
    return y, Program(trace.lines, len(xs), output)


# ---------------------------------------------------------------------------------------------
# 4. Sweeps: the program forward, and backward
#
# Forward, a program turns tangents of the inputs into the tangent of the output: J t. This is
# called *push*. Backward, each line is replaced by its transpose and the order is reversed: Scale
# hands c * ct to each variable that it reads, Apply hands over op.transposed(ct), and a variable
# that is read twice adds up what it gets. What arrives at the inputs is ct @ J. This is *pull*, and
# it is all there is to reverse mode: there is no other place where derivatives are computed.
#
# Neither sweep runs user code or a slope again. (gpujac: transforms/sweep.py. It collects the reads
# of slices and writes them into one array at the end; here each read makes a padded array.)


def scaled(t: Any, c: Any) -> Any:
    """c * t, where None stands for 1."""
    return t if c is None else multiply(t, c)


def plus(a: Any, b: Any) -> Any:
    """a + b, where None stands for a zero that was never made."""
    return b if a is None else a if b is None else add(a, b)


def push(program: Program, *tangents: Any) -> Any:
    """The tangent of the output."""
    ts = list(tangents)
    for line in program.lines[program.inputs :]:
        if isinstance(line, Apply):
            ts.append(line.op(ts[line.reads[0]]))
            continue
        total = None
        for v, c in zip(line.reads, line.coefs, strict=True):
            total = plus(total, scaled(ts[v], c))
        ts.append(total)
    return None if program.output is None else ts[program.output]


def pull(program: Program, ct: Any) -> list:
    """The cotangents of the inputs; None is a zero."""
    cts: list = [None] * len(program.lines)
    if program.output is not None:
        cts[program.output] = ct
    for i in reversed(range(program.inputs, len(program.lines))):
        line, ct = program.lines[i], cts[i]
        if ct is None:
            continue
        if isinstance(line, Apply):
            (v,) = line.reads
            cts[v] = plus(cts[v], line.op.transposed(ct))
        else:
            for v, c in zip(line.reads, line.coefs, strict=True):
                cts[v] = plus(cts[v], scaled(ct, c))
    return cts[: program.inputs]


def jvp(f: Any, x: Any, t: Any) -> tuple:
    """f(x) and J t. (gpujac carries tangents along instead, and frees them: transforms/jvp.py)"""
    y, program = linearize(f, x)
    return y, push(program, t)


def vjp(f: Any, *xs: Any) -> tuple:
    """f(*xs) and the function ct -> ct @ J."""
    y, program = linearize(f, *xs)
    return y, lambda ct: pull(program, ct)


def grad(f: Any) -> Any:
    """The gradient of a scalar function with respect to its first argument."""
    return lambda x, *rest: vjp(lambda x: f(x, *rest), x)[1](np.float64(1.0))[0]


# ---------------------------------------------------------------------------------------------
# 5. Jacobians in chunks
#
# Pulling the i-th unit vector back gives row i of J. A loop over rows would run the program once
# per row, in Python. But structural ops leave axes in front alone, and coefficients broadcast:
# seeds of shape (k, *output) go through the very same program and come out as k rows. So the same
# loop over the lines makes a whole block of the Jacobian, and NumPy does the work.
#
# Why not all rows at once? Every intermediate array exists k times during a sweep. A chunk bounds
# that, and one that fits the processor's cache is also the fastest. f itself runs once in all
# cases. (gpujac: transforms/jacobian.py, chunking.py; it also keeps the unit vectors symbolic, as a
# diagonal, until an operation mixes entries: transforms/hot.py)


def jacobian(f: Any, mode: str = "rev", chunk_size: int | None = None) -> Any:
    """The Jacobian of f, by rows (rev) or by columns (fwd)."""

    def jacobian_of(x: Any) -> Any:
        y, program = linearize(f, x)
        sides = (shape_of(y), shape_of(x)) if mode == "rev" else (shape_of(x), shape_of(y))
        seed, other = sides
        count, width = math.prod(seed), math.prod(other)
        step = chunk_size or max(count, 1)
        J = np.zeros((count, width))
        for start in range(0, count, step):
            k = min(step, count - start)
            basis = np.eye(k, count, start).reshape((k, *seed))
            part = pull(program, basis)[0] if mode == "rev" else push(program, basis)
            if part is not None:
                J = placed(J, Reshape((k, *other), (k, width))(part), start)
        if mode == "fwd":
            J = Swap((count, width), (width, count))(J)
        return Reshape(J.shape, shape_of(y) + shape_of(x))(J)

    return jacobian_of


def placed(J: Any, part: Any, start: int) -> Any:
    """J with the rows of one chunk in their place."""
    if isinstance(J, Tracer) or isinstance(part, Tracer):  # watched from outside: no buffer to use
        return J + Pad(part.shape, J.shape, -2, start)(part)
    J[start : start + len(part)] = part
    return J


def hessian(f: Any, chunk_size: int | None = None) -> Any:
    """Second derivatives: the Jacobian of the gradient, forward over reverse."""
    return jacobian(grad(f), "fwd", chunk_size)


# ---------------------------------------------------------------------------------------------
# 6. vmap: a function of one example becomes a function of many
#
# Another trace, another payload: a tracer holds the whole batch and shows the shape of one example.
# Here the mapped axis stands in front, so structural ops need no rule at all (they leave leading
# axes alone), and pointwise ops only need the operands lined up: an example of shape (3,) next to
# one of shape (2, 3) is batched as (B, 1, 3) next to (B, 2, 3). An `if` cannot work, since there is
# one answer per example. (gpujac leaves the mapped axis where it is: transforms/vmap.py)


class VmapTrace(Trace):
    """Tracers hold (batch, True), or (value, None) for what is the same in every example."""

    def wrap(self, value: Any, mapped: bool | None) -> Tracer:
        return Tracer(self, value, mapped, shape_of(value)[1:] if mapped else shape_of(value))

    def pointwise(self, op: Pointwise, xs: tuple) -> Tracer:
        values, mapped = self.split(xs)
        rank = max(len(shape_of(x)) for x in xs)
        for p, (x, v) in enumerate(zip(xs, values, strict=True)):
            if mapped[p] and len(x.shape) < rank:
                ones = (1,) * (rank - len(x.shape))
                values[p] = Reshape(v.shape, v.shape[:1] + ones + v.shape[1:])(v)
        return self.wrap(op(*values), any(mapped) or None)

    def linear(self, op: Linear, x: Tracer) -> Tracer:
        return self.wrap(op(x.value), x.extra)

    def concrete(self, x: Tracer) -> Any:
        raise TypeError("vmap: there is one value per example here, so Python cannot branch on it")


def vmap(f: Any) -> Any:
    """f over the first axis of its argument."""

    def batched(xs: Any) -> Any:
        trace = VmapTrace()
        (ys,), (mapped,) = trace.split((f(trace.wrap(xs, True)),))
        return ys if mapped else Spread(shape_of(ys), (len(xs), *shape_of(ys)))(ys)

    return batched


# ---------------------------------------------------------------------------------------------
# 7. Does it work?
#
# Three functions as a user would write them. They know nothing of this file or of gpujac.


def reaction(u: Any) -> Any:
    """A stencil that writes into a buffer."""
    du = np.zeros_like(u)
    du[1:-1] = 0.3 * (u[2:] - 2 * u[1:-1] + u[:-2]) + u[1:-1] * (1 - u[1:-1])
    du[0] = u[-1] ** 2
    return du


def pendulum(s: Any) -> Any:
    """Python control flow on a value."""
    friction = 0.5 if s[1] > 0 else 0.1
    return np.stack([s[1], -np.sin(s[0]) - friction * s[1] * np.exp(s[1] / 4)])


WEIGHTS = np.random.default_rng(0).standard_normal((4, 6))


def loss(w: Any) -> Any:
    """A scalar with a matrix product in it."""
    return np.sum(np.tanh(WEIGHTS @ w) ** 2.0) + np.log(np.sum(w * w))


def differences(f: Any, x: Any, h: float = 1e-6) -> Any:
    """The Jacobian by central differences, column by column."""
    columns = [(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(x.size)]
    return np.stack(columns, axis=-1)


def same(a: Any, b: Any, tolerance: float = 1e-12) -> None:
    """Raise unless shapes are the same and entries agree."""
    assert shape_of(a) == shape_of(b), (shape_of(a), shape_of(b))
    assert np.max(np.abs(a - b)) < tolerance, np.max(np.abs(a - b))


def check_jacobians(f: Any, x: Any) -> None:
    """Both modes, all chunk sizes, against differences, against gpujac; f runs once."""
    J = gj.jacrev(f)(x)
    same(J, differences(f, x), 1e-8)
    runs = []

    def counted(x: Any) -> Any:
        runs.append(1)
        return f(x)

    for mode in ("rev", "fwd"):
        for chunk_size in (None, 1, 2, 3):
            runs.clear()
            same(jacobian(counted, mode, chunk_size)(x), J)
            assert len(runs) == 1
    same(J, gj.jacfwd(f, chunk_size=2)(x))


def check_adjoint(f: Any, x: Any) -> None:
    """<ct, J t> = <ct J, t>: forward and backward are one linear map and its transpose."""
    random = np.random.default_rng(1)
    t = random.standard_normal(x.shape)
    y, dy = jvp(f, x, t)
    same(y, f(x))
    ct = random.standard_normal(shape_of(y))
    _, pullback = vjp(f, x)
    same(np.sum(ct * dy), np.sum(pullback(ct)[0] * t))
    same(dy, gj.jvp(f, (x,), (t,))[1])
    same(pullback(ct)[0], gj.vjp(f, x)[1](ct)[0])


def check_nesting(w: Any) -> None:
    """Transforms of transforms, two and three deep."""
    H = hessian(loss)(w)
    same(H, differences(grad(loss), w), 1e-7)
    same(H, gj.hessian(loss)(w), 1e-10)
    same(H, jacobian(grad(loss), "rev", 2)(w), 1e-10)
    batch = np.stack([w, 2 * w, w - 0.5])
    same(vmap(grad(loss))(batch), np.stack([grad(loss)(one) for one in batch]))
    same(vmap(hessian(loss, 2))(batch), gj.vmap(gj.hessian(loss))(batch), 1e-10)
    same(vmap(jacobian(reaction))(batch), gj.vmap(gj.jacrev(reaction))(batch))
    same(jacobian(vmap(loss))(batch), gj.jacrev(gj.vmap(loss))(batch))
    third = grad(lambda a: grad(lambda b: grad(lambda c: np.sin(c) * a * c)(b) * b)(a))
    same(third(0.7), gj.grad(lambda a: gj.grad(lambda b: gj.grad(
        lambda c: np.sin(c) * a * c)(b) * b)(a))(0.7))  # fmt: skip


def show(program: Program) -> str:
    """The program as text, one line per variable."""
    text = [f"v{i} = input" for i in range(program.inputs)]
    for i, line in enumerate(program.lines[program.inputs :], program.inputs):
        if isinstance(line, Apply):
            text.append(f"v{i} = {type(line.op).__name__} {line.op.src} -> {line.op.dst} of v{line.reads[0]}")
            continue
        terms = (f"v{v}" if c is None else f"c{shape_of(c)} * v{v}"
                 for v, c in zip(line.reads, line.coefs, strict=True))  # fmt: skip
        text.append(f"v{i} = {' + '.join(terms)}")
    return "\n".join([*text, f"output v{program.output}"])


def main() -> None:
    """Check everything and show one program."""
    u = np.array([0.3, 0.8, 0.5, 0.1, 0.9, 0.4])
    for f, x in ((reaction, u), (pendulum, np.array([0.4, 1.5])), (pendulum, np.array([0.4, -1.5]))):
        check_jacobians(f, x)
        check_adjoint(f, x)
    check_jacobians(loss, u)
    check_nesting(u)
    _, program = linearize(lambda x: np.sum(np.sin(x) * x[0]), np.ones(3))
    print("The linear program of sum(sin(x) * x[0]) at a point with three entries (c is a coefficient):\n")
    print(show(program))
    print("\nAll checks against central differences and against gpujac passed.")


if __name__ == "__main__":
    main()
