"""Functions with control flow, each also in plain Python for one example at a time."""

from typing import Any

import numpy as np

import gpujac as gj

INNER = 3  # length of the vectors below


def root(x: Any) -> Any:
    """A branch whose other side has no value where it is not taken."""
    return gj.cond(x.sum() > 0, lambda x: np.sqrt(x.sum()) * x, lambda x: np.sin(x), x)


def root_plain(x: Any) -> Any:
    return np.sqrt(x.sum()) * x if x.sum() > 0 else np.sin(x)


def many(x: Any) -> Any:
    """A switch by a number computed from the values."""
    index = np.floor(x[0]).astype(np.int64)
    return gj.switch(index, [lambda x: -x, lambda x: x * x[1], lambda x: np.exp(x[::-1])], x)


def many_plain(x: Any) -> Any:
    index = min(max(int(np.floor(gj.value(x)[0])), 0), 2)
    return [lambda x: -x, lambda x: x * x[1], lambda x: np.exp(x[::-1])][index](x)


def newton(x: Any) -> Any:
    """Cube roots, until each entry of the lane is close enough."""
    start = {"y": np.ones_like(x), "steps": 0}
    far = lambda s: (abs(s["y"] ** 3 - x) > 1e-14 * (1 + abs(x))).any() & (s["steps"] < 60)
    step = lambda s: {"y": s["y"] - (s["y"] - x / s["y"] ** 2) / 3, "steps": s["steps"] + 1}
    return gj.while_loop(far, step, start)["y"]


def newton_plain(x: Any) -> Any:
    y, steps = np.ones_like(x), 0
    while (abs(gj.value(y) ** 3 - gj.value(x)) > 1e-14 * (1 + abs(gj.value(x)))).any() and steps < 60:
        y, steps = y - (y - x / y**2) / 3, steps + 1
    return y


def powers(x: Any) -> Any:
    """A loop with a bound per lane."""
    return gj.fori_loop(1, abs(np.floor(x[0])).astype(np.int64) + 2, lambda i, y: y * np.cos(x) + i, x)


def powers_plain(x: Any) -> Any:
    y = x
    for i in range(1, abs(int(np.floor(gj.value(x)[0]))) + 2):
        y = y * np.cos(x) + i
    return y


def recurrence(x: Any) -> Any:
    """A scan whose state and results are used."""
    state, ys = gj.scan(lambda s, v: (np.tanh(s + v), s * v), x[0], x, reverse=True)
    return np.stack([ys[0], ys[1] * state, ys[2]])


def recurrence_plain(x: Any) -> Any:
    s, ys = x[0], [None] * 3
    for i in (2, 1, 0):
        ys[i] = s * x[i]
        s = np.tanh(s + x[i])
    return np.stack([ys[0], ys[1] * s, ys[2]])


def nested(x: Any) -> Any:
    """A branch in a loop in a scan."""

    def grow(y: Any, v: Any) -> Any:
        step = lambda y: gj.cond(v > 0, lambda y: y * 1.5 + v, lambda y: y * 2 - v * y, y)
        y = gj.while_loop(lambda y: abs(y) < 3, step, y)
        return y / 4, y

    return gj.scan(grow, 0.5 + 0 * x[0], x)[1]


def nested_plain(x: Any) -> Any:
    y, ys = 0.5 + 0 * x[0], []
    for v in x:
        while abs(y) < 3:
            y = y * 1.5 + v if v > 0 else y * 2 - v * y
        ys.append(y)
        y = y / 4
    return np.stack(ys)


def window(x: Any) -> Any:
    """A slice and an update at a place of the lane's own."""
    start = (x[0] > 0).astype(np.int64) + (x[1] > 0).astype(np.int64)
    part = gj.control.dynamic_slice(x * x, start, 2)
    return gj.control.dynamic_update_slice(np.sin(x), part[::-1] * x[0], start)


def window_plain(x: Any) -> Any:
    at = min(int(x[0] > 0) + int(x[1] > 0), 1)
    part = (x * x)[at : at + 2]
    y = np.sin(x)
    y[at : at + 2] = part[::-1] * x[0]
    return y


def mapped(x: Any) -> Any:
    """A map in batches over the entries."""
    return gj.control.map(lambda v: gj.cond(v > 0, np.log1p, np.exp, v), x, batch_size=2)


def mapped_plain(x: Any) -> Any:
    return np.stack([np.log1p(v) if v > 0 else np.exp(v) for v in x])


PAIRS = {
    "cond": (root, root_plain),
    "switch": (many, many_plain),
    "while_loop": (newton, newton_plain),
    "fori_loop": (powers, powers_plain),
    "scan": (recurrence, recurrence_plain),
    "nested": (nested, nested_plain),
    "dynamic slices": (window, window_plain),
    "map": (mapped, mapped_plain),
}


def batch() -> Any:
    """Five examples that take different ways."""
    rows = [[0.4, 1.3, 2.2], [-1.5, 0.6, -0.3], [1.7, -0.5, 0.9], [2.6, 0.2, -1.1], [-0.7, -0.2, -2.4]]
    return np.array(rows)
