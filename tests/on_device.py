"""Checks that know NumPy alone, run on the device: their transforms and functions stand in between.

A check that meets `Device()` in the place of gpujac works with NumPy arrays all the way; what goes
into a transform is put on the device and what comes out is fetched. `mixed` makes the function
under test one that runs on either side.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import optree

import gpujac as gj
from gpujac.core.trace import Tracer
from tests import device

_TRANSFORMS = """vjp jvp linearize linear_transpose grad grad_and_value value_and_grad jacrev jacfwd
    jacobian hessian vmap""".split()


def put(tree: Any) -> Any:
    """The NumPy arrays and floating-point numbers of a tree on the device."""
    wanted = (np.ndarray, np.floating)
    return optree.tree_map(lambda x: device.array(x) if isinstance(x, wanted) else x, tree)


class Device:
    """gpujac whose transforms take and give NumPy arrays, and work on the device in between."""

    def __init__(self) -> None:
        self.inside = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(gj, name)
        return self.moved(found) if name in _TRANSFORMS else found

    def moved(self, f: Callable) -> Callable:
        """`f` between host and device; inside another transform as it is."""

        @functools.wraps(f)
        def call(*args: Any, **kwargs: Any) -> Any:
            args = tuple(put(x) for x in args)
            if self.inside:  # pullbacks of inner transforms, too, may be given NumPy arrays
                inner = f(*args, **kwargs)
                return optree.tree_map(lambda x: self.moved(x) if callable(x) else x, inner)
            self.inside = True
            try:
                result = f(*args, **kwargs)
            finally:
                self.inside = False
            return optree.tree_map(self.fetched, result)

        return call

    def fetched(self, x: Any) -> Any:
        """A result of a transform, which must be on the device, on the host."""
        assert not isinstance(x, np.ndarray), "device arrays in, a NumPy array out"
        if callable(x):
            return self.moved(x)
        return device.host(x)[()]


def mixed(original: Callable, variant: Callable) -> Callable:
    """`variant` where a traced array or one of the device is an argument, else the original."""

    @functools.wraps(original)
    def f(*args: Any) -> Any:
        leaves = optree.tree_leaves(args)
        if not any(isinstance(x, (Tracer, device.TYPE)) for x in leaves):
            return original(*args)
        return variant(*[optree.tree_map(_array_put, x) for x in args])

    return f


def _array_put(x: Any) -> Any:
    return device.array(x) if isinstance(x, np.ndarray) else x
