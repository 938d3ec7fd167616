"""Every operation of the library, one file per family; rules live with their op."""

import importlib

from gpujac.core import decompose

_TABLES = ("gpujac.array.decompositions",)  # written with the functions of the floor above


def _load_decompositions() -> None:
    """Import the tables of decompositions, at the first need of one (one of two places with late imports)."""
    for name in _TABLES:
        importlib.import_module(name)


decompose.set_loader(_load_decompositions)
