"""Products and linear algebra with NumPy's signatures."""

from typing import Any

import opt_einsum

from gpujac.array import common as c
from gpujac.array import factor as fa
from gpujac.array import fill
from gpujac.array import reduce as red
from gpujac.array import shape as sh
from gpujac.core.aval import shape_of
from gpujac.errors import ArgumentError, ShapeError
from gpujac.ops import contract as ct
from gpujac.ops import elementwise as ew
from gpujac.ops import linalg as la

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_PLAIN = {  # ranks of the operands -> the product without leading axes
    (1, 1): ct.contract("j", "j", ""),
    (1, 2): ct.contract("j", "jk", "k"),
    (2, 1): ct.contract("ij", "j", "i"),
    (2, 2): ct.contract("ij", "jk", "ik"),
}


def matmul(x: Any, y: Any, /, out: Any = None, **kwargs: Any) -> Any:
    """Matrix product over the last two axes, leading axes broadcast."""
    if out is not None or kwargs:
        c.refuse("matmul", out=out, **kwargs)
    if getattr(x, "dtype", None) is getattr(y, "dtype", 0):
        op = _PLAIN.get((len(x.shape), len(y.shape)))
        if op is not None and x.shape[-1] == y.shape[0]:  # nearly every call
            return op(x, y)
    else:
        x, y = c.promoted(*c.together(x, y))
    m, n = len(shape_of(x)), len(shape_of(y))
    if m == 0 or n == 0:
        raise ShapeError("matmul: a zero-dimensional operand has no matrix; use * instead")
    _check_inner(x, y, -1, -1 if n == 1 else -2, "matmul")
    if m <= 2 and n <= 2:
        return _PLAIN[m, n](x, y)
    lead = c.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, left = _batched(x, lead, "j" if m == 1 else "ij")
    y, right = _batched(y, lead, "j" if n == 1 else "jk")
    names = "".join(_LETTERS[-1 - i] for i in range(len(lead)))
    return ct.contract(left, right, names + ("" if m == 1 else "i") + ("" if n == 1 else "k"))(x, y)


def _batched(x: Any, lead: tuple, core: str) -> tuple[Any, str]:
    """`x` with leading axes named; axes of length one that broadcast are spread explicitly."""
    own = tuple(x.shape[: len(x.shape) - len(core)])
    if own and own != lead[len(lead) - len(own) :]:
        x = c.broadcast(x, lead[len(lead) - len(own) :] + tuple(x.shape[len(own) :]))
    names = "".join(_LETTERS[-1 - i] for i in range(len(lead)))
    return x, names[len(lead) - len(own) :] + core


def _check_inner(x: Any, y: Any, i: int, j: int, what: str) -> None:
    if x.shape[i] != y.shape[j]:
        raise ShapeError(
            f"{what}: shapes {tuple(x.shape)} and {tuple(y.shape)} do not fit: {x.shape[i]} is not {y.shape[j]}"
        )


def dot(x: Any, y: Any, out: Any = None) -> Any:
    """NumPy's dot: matrix product, or the sum over the last axis of x and second last of y."""
    c.refuse("dot", out=out)
    x, y = c.together(x, y)
    m, n = len(shape_of(x)), len(shape_of(y))
    if m == 0 or n == 0:
        return ew.multiply(x, y)
    if m <= 2 and n <= 2:
        return matmul(x, y)
    return tensordot(x, y, ((m - 1,), (max(n - 2, 0),)))


def vecdot(x: Any, y: Any, /, *, axis: int = -1, out: Any = None) -> Any:
    """Sum of conj(x) y along `axis`, the other axes broadcast."""
    c.refuse("vecdot", out=out)
    x, y = c.promoted(x, y)
    x = red.conj(sh.moveaxis(x, axis, -1))
    y = sh.moveaxis(y, axis, -1)
    _check_inner(x, y, -1, -1, "vecdot")
    lead = c.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    x, left = _batched(x, lead, "j")
    y, right = _batched(y, lead, "j")
    return ct.contract(left, right, "".join(_LETTERS[-1 - i] for i in range(len(lead))))(x, y)


def vdot(x: Any, y: Any) -> Any:
    """Sum of conj(x) y over all entries."""
    return vecdot(sh.ravel(x), sh.ravel(y))


def inner(x: Any, y: Any) -> Any:
    """Sum over the last axes."""
    if shape_of(x) == () or shape_of(y) == ():
        return ew.multiply(x, y)
    return tensordot(x, y, ((-1,), (-1,)))


def outer(x: Any, y: Any, out: Any = None) -> Any:
    """Products of all pairs of entries."""
    c.refuse("outer", out=out)
    x, y = c.promoted(*(sh.ravel(v) for v in c.arrays(x, y)))
    return ct.contract("i", "j", "ij")(x, y)


def tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    """Sum over pairs of axes."""
    x, y = c.promoted(*c.arrays(x, y))
    m, n = len(x.shape), len(y.shape)
    if isinstance(axes, int):
        first, second = tuple(range(m - axes, m)), tuple(range(axes))
    else:
        first, second = (tuple(a) if isinstance(a, (tuple, list)) else (a,) for a in axes)
    first = tuple(c.axis_of(a, m, "tensordot") + m for a in first)
    second = tuple(c.axis_of(a, n, "tensordot") + n for a in second)
    if len(first) != len(second):
        raise ShapeError(f"tensordot: {len(first)} axes against {len(second)}")
    for a, b in zip(first, second, strict=True):
        _check_inner(x, y, a, b, "tensordot")
    left = list(_LETTERS[:m])
    right = list(_LETTERS[m : m + n])
    for a, b in zip(first, second, strict=True):
        right[b] = left[a]
    out = [s for i, s in enumerate(left) if i not in first] + [s for i, s in enumerate(right) if i not in second]
    return ct.contract("".join(left), "".join(right), "".join(out))(x, y)


def einsum(*operands: Any, out: Any = None, optimize: Any = True, **kwargs: Any) -> Any:
    """Einstein summation; more than two operands follow the path that opt_einsum finds."""
    c.refuse("einsum", out=out, **{k: v for k, v in kwargs.items() if k not in ("casting", "order")})
    if not isinstance(operands[0], str):
        operands = _with_subscripts(operands)
    arrays = list(c.together(*operands[1:]))
    arrays = list(c.promoted(*arrays)) if len(arrays) > 1 else arrays
    shapes = [shape_of(x) for x in arrays]
    spec = opt_einsum.parser.parse_einsum_input((operands[0], *shapes), shapes=True)
    inputs, output = spec[0].split(","), spec[1]
    pairs = [_diagonals(x, s) for x, s in zip(arrays, inputs, strict=True)]
    pairs = _stretch_ones(pairs)
    while len(pairs) > 1:
        i, j = _next_pair(pairs, output)
        (a, left), (b, right) = pairs[i], pairs[j]
        rest = [p for k, p in enumerate(pairs) if k not in (i, j)]
        later = set(output).union(*(s for _, s in rest))
        kept = "".join(dict.fromkeys(s for s in left + right if s in later))
        pairs = [*rest, (ct.einsum_pair(left, right, kept, a, b), kept)]
    return _arranged(*pairs[0], output)


def _with_subscripts(operands: tuple) -> tuple:
    """einsum(x, [0, 1], y, [1], [0]) as a string of subscripts before its operands."""

    def letters(axes: Any) -> str:
        return "".join("..." if a is Ellipsis else opt_einsum.get_symbol(a) for a in axes)

    pairs = len(operands) // 2
    spec = ",".join(letters(operands[2 * i + 1]) for i in range(pairs))
    if len(operands) % 2:
        spec += "->" + letters(operands[-1])
    return spec, *(operands[2 * i] for i in range(pairs))


def _stretch_ones(pairs: list) -> list:
    """Axes of length one that broadcast against longer ones of the same letter, spread."""
    sizes: dict[str, int] = {}
    for x, s in pairs:
        for letter, n in zip(s, shape_of(x), strict=True):
            if sizes.get(letter, 1) != 1 and n not in (1, sizes[letter]):
                raise ShapeError(f"einsum: letter {letter!r} has lengths {sizes[letter]} and {n}")
            sizes[letter] = max(sizes.get(letter, 1), n) if n else n
    return [(c.broadcast(x, tuple(sizes[k] for k in s)), s) for x, s in pairs]


def _next_pair(pairs: list, output: str) -> tuple[int, int]:
    if len(pairs) == 2:
        return 0, 1
    spec = ",".join(s for _, s in pairs) + "->" + output
    path, _ = opt_einsum.contract_path(spec, *(shape_of(x) for x, _ in pairs), shapes=True)
    first = sorted(path[0])
    return (first[0], first[1]) if len(first) > 1 else (0, 1)


def _diagonals(x: Any, letters: str) -> tuple[Any, str]:
    """Repeated letters of one operand become its diagonal."""
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            i = letters.index(letter)
            j = letters.index(letter, i + 1)
            if x.shape[i] != x.shape[j]:
                raise ShapeError(f"einsum: letter {letter!r} has lengths {x.shape[i]} and {x.shape[j]}")
            x = fill.diagonal(x, 0, i, j)
            letters = "".join(s for k, s in enumerate(letters) if k not in (i, j)) + letter
    return x, letters


def _arranged(x: Any, letters: str, output: str) -> Any:
    gone = tuple(i for i, s in enumerate(letters) if s not in output)
    if gone:
        x = red.sum(x, gone)
        letters = "".join(s for s in letters if s in output)
    return sh.transpose(x, tuple(letters.index(s) for s in output)) if letters != output else x


def solve(a: Any, b: Any) -> Any:
    """x with a @ x = b, over the last two axes; a 1-d b is a vector."""
    a, b = c.promoted(*(c.floating(v) for v in c.together(a, b)))
    a = fa.matrix(a, "solve")
    vector = len(b.shape) == 1
    _check_inner(a, b, -1, -1 if vector else -2, "solve")
    if vector:
        lead = tuple(a.shape[:-2])
        return la.solve(a, c.broadcast(b, lead + tuple(b.shape)) if lead else b, True)
    lead = c.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if tuple(a.shape[:-2]) not in ((), lead):
        a = c.broadcast(a, lead + tuple(a.shape[-2:]))
    return la.solve(a, c.broadcast(b, lead + tuple(b.shape[-2:])), False)


def inv(a: Any) -> Any:
    """The inverse of square matrices."""
    return la.INV(fa.matrix(a, "inv"))


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Vector or matrix norm."""
    if ord is None and axis is None:
        return red.vector_norm(x, keepdims=keepdims)
    axes = c.axes_of(axis, len(x.shape), "norm")
    if len(axes) not in (1, 2):
        raise ShapeError(
            f"norm: {len(axes)} axes of shape {tuple(x.shape)}; name one axis for vectors or two for matrices"
        )
    if ord is None or (ord == "fro" and len(axes) == 2):
        return red.vector_norm(x, axis=axes, keepdims=keepdims)
    if len(axes) == 1:
        if isinstance(ord, str):
            raise ArgumentError(f"norm: ord={ord!r} is no norm of a vector; use a number, inf or None")
        return red.vector_norm(x, axis=axes[0], keepdims=keepdims, ord=ord)
    order = axis if isinstance(axis, tuple) else axes
    x = c.floating(x)
    row, column = c.axis_of(order[0], len(x.shape), "norm"), c.axis_of(order[1], len(x.shape), "norm")
    best = fa.spectral(sh.moveaxis(x, (row, column), (-2, -1)), ord)
    return sh.expand_dims(best, (row, column)) if keepdims else best


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """Norm of the matrices in the last two axes."""
    return norm(x, ord, (-2, -1), keepdims)


def cross(x: Any, y: Any, axis: int = -1) -> Any:
    """Cross product of 3-vectors along `axis`."""
    x, y = (sh.moveaxis(v, axis, -1) for v in c.together(x, y))
    if x.shape[-1] != 3 or y.shape[-1] != 3:
        raise ShapeError(f"cross: needs vectors of length 3, found {x.shape[-1]} and {y.shape[-1]}")
    forward, backward = [1, 2, 0], [2, 0, 1]

    def turned(v: Any, order: list) -> Any:
        return sh.concatenate([v[..., i : i + 1] for i in order], -1)

    return sh.moveaxis(turned(x, forward) * turned(y, backward) - turned(x, backward) * turned(y, forward), -1, axis)
