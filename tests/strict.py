"""NumPy's name over arrays of array-api-strict, for twins of test modules.

A function reads strict arrays and gives such arrays back; with a traced array among its arguments it is
NumPy's own, which the traced array answers. So `np.sin(x)` in a twin works on plain and on traced arrays,
and everything inside a transform goes through the namespace of array-api-strict.
"""

import types
from collections.abc import Callable
from typing import Any

import array_api_strict as xps
import numpy as np
import optree

import gpujac as gj

TYPE = type(xps.asarray(1.0))


def fetched(tree: Any) -> Any:
    """Strict arrays in a tree as NumPy's; other things as they are."""
    return optree.tree_map(lambda x: np.asarray(x._array) if isinstance(x, TYPE) else x, tree)


def put(tree: Any) -> Any:
    """NumPy's arrays and scalars in a tree as strict ones; other things as they are."""
    numbers = (np.ndarray, np.floating, np.complexfloating)
    return optree.tree_map(lambda x: xps.asarray(np.asarray(x)) if isinstance(x, numbers) else x, tree)


def over(function: Callable) -> Callable:
    """A function of NumPy's over strict and traced arrays."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if any(gj.is_traced(x) for x in optree.tree_leaves((args, kwargs))):
            return function(*args, **kwargs)
        return put(function(*fetched(args), **fetched(kwargs)))

    return call


class Library(types.ModuleType):
    """NumPy's names over strict arrays."""

    ndarray = TYPE

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        return over(found) if callable(found) and not isinstance(found, type) else found


LIBRARY = Library("numpy")
