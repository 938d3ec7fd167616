"""Layers of neural networks by NumPy's functions: one example each, no batch axis."""

from itertools import product
from typing import Any

import numpy as np


def log_softmax(z: Any) -> Any:
    """Logarithm of the softmax over the last axis."""
    z = z - np.max(z, axis=-1, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


def nll(log_p: Any, target: Any, reduction: str = "mean") -> Any:
    """Negative log likelihood of integer targets, one per row."""
    rows = -np.take_along_axis(log_p, target[..., None], axis=-1)[..., 0]
    return {"none": lambda: rows, "mean": rows.mean, "sum": rows.sum}[reduction]()


def relu(x: Any) -> Any:
    """The positive part."""
    return np.maximum(x, 0.0)


def conv(x: Any, w: Any, b: Any = None, *, stride: int = 1, padding: int = 0, dilation: int = 1,
         groups: int = 1) -> Any:  # fmt: skip
    """Cross-correlation. x: (channels, *space), w: (out, channels / groups, *window) -> (out, *space')."""
    space, window = x.shape[1:], w.shape[2:]
    if padding:
        padded = np.zeros_like(x, shape=(x.shape[0], *(n + 2 * padding for n in space)))
        padded[(slice(None), *(slice(padding, padding + n) for n in space))] = x
        x, space = padded, padded.shape[1:]
    out = [(n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(space, window, strict=True)]
    x = x.reshape(groups, -1, *space)
    w = w.reshape(groups, -1, *w.shape[1:])
    total: Any = 0.0
    for taps in product(*map(range, window)):  # one strided slice of x per tap of the window
        starts = [t * dilation for t in taps]
        cuts = [slice(a, a + (n - 1) * stride + 1, stride) for a, n in zip(starts, out, strict=True)]
        total = total + np.einsum("goc,gc...->go...", w[(..., *taps)], x[(slice(None), slice(None), *cuts)])
    y = total.reshape(-1, *out)
    return y if b is None else y + b.reshape(-1, *(1,) * len(out))


def max_pool2d(x: Any, k: int) -> Any:
    """Largest entry of each k by k block; what is left over at the ends is dropped."""
    c, n, m = x.shape
    blocks = x[:, : n // k * k, : m // k * k].reshape(c, n // k, k, m // k, k)
    return np.max(blocks, axis=(2, 4))


def adaptive_avg_pool2d(x: Any, shape: tuple) -> Any:
    """Means over `shape` blocks that cover both axes, overlapping where sizes do not divide."""
    _, n, m = x.shape
    edge = lambda i, size, parts: (i * size // parts, -(-(i + 1) * size // parts))
    rows = [edge(i, n, shape[0]) for i in range(shape[0])]
    columns = [edge(j, m, shape[1]) for j in range(shape[1])]
    return np.stack([np.stack([x[:, a:b, c:d].mean(axis=(1, 2)) for c, d in columns], -1) for a, b in rows], -2)


def group_norm(x: Any, groups: int, scale: Any, shift: Any, eps: float = 1e-5) -> Any:
    """Channels normalized group by group over all their entries."""
    y = x.reshape(groups, -1)
    y = (y - y.mean(axis=1, keepdims=True)) / np.sqrt(y.var(axis=1, keepdims=True) + eps)
    wide = (-1, *(1,) * (x.ndim - 1))
    return y.reshape(x.shape) * scale.reshape(wide) + shift.reshape(wide)


def batch_norm(x: Any, eps: float = 1e-5) -> Any:
    """Features normalized over the batch x: (batch, features, ...), without running statistics."""
    axes = (0, *range(2, x.ndim))
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + eps)
