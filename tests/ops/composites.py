"""Calls of the namespace's functions that are made of several ops, as users write them."""

from collections.abc import Callable

import numpy as np

from gpujac.core.op import Sample

_INDEX = np.array([[2, 0, 1], [1, 1, 0]])


def _row(f: Callable, *shapes: tuple, low: float = -2.0, high: float = 2.0, cx: bool = False,
         kinds: str = "") -> tuple[Callable, Sample]:  # fmt: skip
    return f, Sample(f, *shapes, low=low, high=high, complex_ok=cx, kinds=kinds)


def _rebuilt(xp, u, s, vh):
    return (u * xp.log(s)) @ vh  # no phase of the vectors is left


# name -> (function of the namespace and the operands, sample); what NumPy says is the truth
COMPOSITES: dict[str, list[tuple[Callable, Sample]]] = {
    "sum": [
        _row(lambda xp, x: xp.sum(x), (2, 3), cx=True),
        _row(lambda xp, x: xp.sum(x, axis=(0, -1), keepdims=True), (2, 3, 2)),
    ],
    "mean": [
        _row(lambda xp, x: xp.mean(x, axis=0), (3, 2), cx=True),
        _row(lambda xp, x: xp.mean(x), (3, 2)),
    ],
    "var": [
        _row(lambda xp, x: xp.var(x, axis=1), (2, 3), cx=False),
        _row(lambda xp, x: xp.var(x, correction=1, keepdims=True), (2, 3)),
    ],
    "std": [
        _row(lambda xp, x: xp.std(x, axis=0), (3, 2)),
        _row(lambda xp, x: xp.std(x, correction=1), (5,)),
    ],
    "prod": [
        _row(lambda xp, x: xp.prod(x), (5,), cx=True),
        _row(lambda xp, x: xp.prod(x, axis=0), (3, 2)),
        _row(lambda xp, x: xp.prod(x, axis=(0, 2), keepdims=True), (2, 2, 3)),
    ],
    "max": [
        _row(lambda xp, x: xp.max(x), (2, 3)),
        _row(lambda xp, x: xp.max(x, axis=1, keepdims=True), (2, 3)),
    ],
    "min": [_row(lambda xp, x: xp.min(x, axis=(0, 1)), (2, 3, 2))],
    "ptp": [_row(lambda xp, x: xp.max(x, axis=0) - xp.min(x, axis=0), (3, 2))],
    "cumulative_sum": [
        _row(lambda xp, x: xp.cumulative_sum(x, axis=1), (2, 3), cx=True),
        _row(lambda xp, x: xp.cumulative_sum(x, axis=0, include_initial=True), (3,)),
    ],
    "diff": [
        _row(lambda xp, x: xp.diff(x), (4,), cx=True),
        _row(lambda xp, x: xp.diff(x, n=2, axis=0), (4, 2)),
    ],
    "linalg.vector_norm": [
        _row(lambda xp, x: xp.linalg.vector_norm(x, axis=1), (2, 3)),
        _row(lambda xp, x: xp.linalg.vector_norm(x, ord=1), (4,)),
        _row(lambda xp, x: xp.linalg.vector_norm(x, ord=3), (4,), low=0.2),
        _row(lambda xp, x: xp.linalg.vector_norm(x, ord=float("inf")), (4,)),
    ],
    "linalg.matrix_norm": [_row(lambda xp, x: xp.linalg.matrix_norm(x), (2, 3, 2))],
    "where": [_row(lambda xp, x, y: xp.where(x > 0, xp.sin(x), y * x), (2, 3), (3,))],
    "clip": [
        _row(lambda xp, x: xp.clip(x, -0.5, 1.0), (7,)),
        _row(lambda xp, x: xp.clip(x, -0.5, None), (7,)),
    ],
    "reshape": [
        _row(lambda xp, x: xp.reshape(x, (3, -1)), (2, 3), cx=True),
        _row(lambda xp, x: xp.reshape(x, ()), (1,)),
    ],
    "permute_dims": [_row(lambda xp, x: xp.permute_dims(x, (2, 0, 1)), (2, 3, 4), cx=True)],
    "moveaxis": [_row(lambda xp, x: xp.moveaxis(x, (0, 1), (-1, 0)), (2, 3, 4), cx=True)],
    "matrix_transpose": [_row(lambda xp, x: xp.matrix_transpose(x), (2, 3, 2), cx=True)],
    "squeeze": [_row(lambda xp, x: xp.squeeze(x, axis=(0, 2)), (1, 3, 1))],
    "expand_dims": [_row(lambda xp, x: xp.expand_dims(x, axis=1), (2, 3))],
    "broadcast_to": [_row(lambda xp, x: xp.broadcast_to(x, (2, 3, 4)), (3, 1), cx=True)],
    "concat": [
        _row(lambda xp, x, y: xp.concat([x, y, x], axis=1), (2, 2), (2, 1), cx=True),
        _row(lambda xp, x, y: xp.concat([x, y], axis=None), (2, 2), (3,)),
    ],
    "stack": [
        _row(lambda xp, x, y: xp.stack([x, y], axis=-1), (2, 3), (2, 3), cx=True),
        _row(lambda xp, x: xp.stack([x[0] * x[1], x[1], x[0]]), (2,)),
    ],
    "unstack": [_row(lambda xp, x: xp.unstack(x, axis=1)[1], (2, 3))],
    "flip": [_row(lambda xp, x: xp.flip(x), (2, 3), cx=True)],
    "roll": [
        _row(lambda xp, x: xp.roll(x, 2), (2, 3), cx=True),
        _row(lambda xp, x: xp.roll(x, (1, -1), axis=(0, 1)), (2, 3)),
    ],
    "tile": [
        _row(lambda xp, x: xp.tile(x, (2, 3)), (2,), cx=True),
        _row(lambda xp, x: xp.tile(x, (2,)), (2, 3)),
    ],
    "repeat": [
        _row(lambda xp, x: xp.repeat(x, 2, axis=0), (2, 3), cx=True),
        _row(lambda xp, x: xp.repeat(x, 2), (2, 2)),
    ],
    "linalg.diagonal": [_row(lambda xp, x: xp.linalg.diagonal(x, offset=1), (3, 4), cx=True)],
    "linalg.trace": [_row(lambda xp, x: xp.linalg.trace(x), (2, 3, 3), cx=True)],
    "tril": [_row(lambda xp, x: xp.tril(x), (3, 3), cx=True), _row(lambda xp, x: xp.tril(x, k=-1), (2, 3, 4))],
    "triu": [_row(lambda xp, x: xp.triu(x, k=1), (3, 3), cx=True)],
    "getitem": [
        _row(lambda xp, x: x[1:, ::-1], (3, 4), cx=True),
        _row(lambda xp, x: x[..., None, 0], (3, 4)),
        _row(lambda xp, x: x[-1, ...], (3, 4)),
    ],
    "take": [
        _row(lambda xp, x, i: xp.take(x, i, axis=1), (2, 3), (4,), kinds="fn", cx=True),
        _row(lambda xp, x, i: xp.take(x, i, axis=0), (3, 2), (2,), kinds="fn"),
    ],
    "take_along_axis": [
        _row(lambda xp, x, i: xp.take_along_axis(x, i, axis=1), (2, 3), (2, 4), kinds="fn", cx=True),
        _row(lambda xp, x, i: xp.take_along_axis(x, i, axis=0), (3, 2), (4, 2), kinds="fn"),
    ],
    "matmul": [
        _row(lambda xp, x, y: x @ y, (2, 3), (3, 2), cx=True),
        _row(lambda xp, x, y: x @ y, (3,), (3,), cx=True),
        _row(lambda xp, x, y: x @ y, (4, 2, 3), (3,)),
        _row(lambda xp, x, y: x @ y, (3,), (4, 3, 2)),
        _row(lambda xp, x, y: xp.matmul(x, y), (4, 1, 2, 3), (2, 3, 2)),
    ],
    "vecdot": [_row(lambda xp, x, y: xp.vecdot(x, y), (2, 3), (3,), cx=True)],
    "tensordot": [
        _row(lambda xp, x, y: xp.tensordot(x, y, axes=((0, 2), (1, 0))), (2, 3, 4), (4, 2), cx=True),
        _row(lambda xp, x, y: xp.tensordot(x, y, axes=1), (2, 3), (3, 2, 2)),
        _row(lambda xp, x, y: xp.tensordot(x, y, axes=0), (2,), (3,)),
    ],
    "linalg.outer": [_row(lambda xp, x, y: xp.linalg.outer(x, y), (2,), (3,), cx=True)],
    "linalg.cross": [_row(lambda xp, x, y: xp.linalg.cross(x, y), (2, 3), (2, 3), cx=True)],
    "linalg.solve": [
        _row(lambda xp, a, b: xp.linalg.solve(a, b), (3, 3), (3,), kinds="mf", cx=True),
        _row(lambda xp, a, b: xp.linalg.solve(a, b), (2, 2, 2), (2, 2, 1), kinds="mf", cx=True),
    ],
    "linalg.inv": [_row(lambda xp, a: xp.linalg.inv(a), (2, 3, 3), kinds="m", cx=True)],
    "linalg.svd": [_row(lambda xp, z: _rebuilt(xp, *xp.linalg.svd(z, full_matrices=False)), (3, 3), kinds="c")],
    "sign": [_row(lambda xp, x: xp.sign(x) * x, (4,))],
    "abs": [_row(lambda xp, x: xp.abs(x) * x, (4,))],
}
# What only NumPy's own namespace has.
NUMPY_ONLY: dict[str, list[tuple[Callable, Sample]]] = {
    "cumsum": [_row(lambda xp, x: xp.cumsum(x), (2, 3), cx=True)],
    "pad": [
        _row(lambda xp, x: xp.pad(x, 1), (2, 2), cx=True),
        _row(lambda xp, x: xp.pad(x, ((0, 2), (1, 0)), constant_values=3.0), (2, 2)),
    ],
    "einsum": [
        _row(lambda xp, x, y: xp.einsum("ij,jk->ik", x, y), (2, 3), (3, 2), cx=True),
        _row(lambda xp, x: xp.einsum("ii->i", x), (3, 3), cx=True),
        _row(lambda xp, x: xp.einsum("ii", x), (3, 3)),
        _row(lambda xp, x: xp.einsum("ijk->kj", x), (2, 3, 2)),
        _row(lambda xp, x, y: xp.einsum("bij,bj->bi", x, y), (2, 3, 2), (2, 2), cx=True),
        _row(lambda xp, x, y: xp.einsum("ij,kl->il", x, y), (2, 3), (2, 2)),
        _row(lambda xp, x, y: xp.einsum("...i,i", x, y), (2, 3), (3,)),
        _row(lambda xp, x, y, z: xp.einsum("i,ij,j->", x, y, z), (2,), (2, 3), (3,), cx=True),
        _row(lambda xp, x, y, z: xp.einsum("ab,bc,ca->abc", x, y, z), (2, 3), (3, 2), (2, 2)),
    ],
    "trace": [_row(lambda xp, x: xp.trace(x, 1, 2, 0), (3, 2, 3), cx=True)],
    "diagonal": [_row(lambda xp, x: xp.diagonal(x, -1), (3, 4, 2), cx=True)],
    "diag": [_row(lambda xp, x: xp.diag(x, 1), (3,)), _row(lambda xp, x: xp.diag(x, -1), (3, 3))],
    "split": [_row(lambda xp, x: xp.split(x, [1, 3])[1] * xp.split(x, 2)[0], (4, 2))],
    "hstack": [_row(lambda xp, x, y: xp.hstack([x, y]), (2, 2), (2, 1))],
    "vstack": [_row(lambda xp, x, y: xp.vstack([x, y]), (2,), (3, 2))],
    "column_stack": [_row(lambda xp, x, y: xp.column_stack([x, y]), (2,), (2, 3))],
    "average": [_row(lambda xp, x, w: xp.average(x, weights=w), (4,), (4,), low=0.2)],
    "dot": [
        _row(lambda xp, x, y: xp.dot(x, y), (2, 3), (3, 2), cx=True),
        _row(lambda xp, x, y: xp.dot(x, y), (2, 2, 3), (2, 3, 2)),
    ],
    "vdot": [_row(lambda xp, x, y: xp.vdot(x, y), (2, 3), (2, 3), cx=True)],
    "inner": [_row(lambda xp, x, y: xp.inner(x, y), (2, 3), (4, 3), cx=True)],
    "linalg.norm": [
        _row(lambda xp, x: xp.linalg.norm(x), (2, 3)),
        _row(lambda xp, x: xp.linalg.norm(x, 1), (2, 3)),
        _row(lambda xp, x: xp.linalg.norm(x, np.inf, axis=(0, 1)), (2, 3)),
        _row(lambda xp, x: xp.linalg.norm(x, axis=0), (2, 3)),
    ],
    "meshgrid": [_row(lambda xp, x, y: xp.meshgrid(x, y)[0] * xp.meshgrid(x, y)[1], (2,), (3,))],
    "angle": [_row(lambda xp, z: xp.angle(z), (3,), kinds="c")],
    "nan_to_num": [_row(lambda xp, x: xp.nan_to_num(x) * x, (3,))],
    "rows": [_row(lambda xp, x: x[-1] * x[:2].sum(), (3, 4), cx=True)],
    "advanced": [
        _row(lambda xp, x: x[_INDEX], (3, 2), cx=True),
        _row(lambda xp, x: x[:, _INDEX[0], 1:], (2, 3, 3)),
        _row(lambda xp, x: x[0, :, _INDEX[0]], (2, 2, 3)),
        _row(lambda xp, x: x[_INDEX[0], [0, 1, 1]], (3, 2)),
        _row(lambda xp, x: x[np.array([True, False, True])], (3, 2)),
        _row(lambda xp, x: x[np.eye(3, dtype=bool)], (3, 3)),
    ],
    "ufunc.reduce": [_row(lambda xp, x: xp.add.reduce(x, axis=1) * xp.multiply.reduce(x, axis=1), (2, 3))],
    "ufunc.outer": [_row(lambda xp, x, y: xp.multiply.outer(x, y) + xp.add.outer(x, y), (2,), (3,))],
    "layers": [
        _row(lambda xp, x, w, v: xp.tanh(v @ xp.tanh(w @ x)), (3,), (2, 3), (3, 2)),
        _row(lambda xp, w, x: xp.sin(xp.sin(x @ w) @ w.T), (3, 2), (2, 3)),
    ],
    "degrees": [_row(lambda xp, x: xp.degrees(x) + xp.radians(x), (3,))],
    "array constants": [_row(lambda xp, x: x * np.arange(3) + x, (3,))],
    "constants": [
        _row(lambda xp, x: 2 * x + 1 - x / 3.0 + (1 - x) ** 2 + 2.0**x, (3,)),
        _row(lambda xp, x: x * 2j + x * (1 + 2j) * 3 - x / 1j, (3,), kinds="c"),
    ],
}
COMPOSITES |= NUMPY_ONLY
# What CuPy's own functions do not take, so that plain arrays cannot be compared, and why.
CUPY_REFUSES = {
    "var": "CuPy's var has ddof=, not correction=",
    "std": "CuPy's std has ddof=, not correction=",
    "array constants": "a NumPy array beside one of CuPy's is an error",
}
