"""Claim: scientific functions written with plain NumPy run through every transform, unedited."""

from __future__ import annotations

import numpy as np
import pytest

import gpujac as gj
from tests.zoo import ZOO
from tests.zoo.checks import BATCHED, CHECKS, Case, run_check

CELLS = [
    pytest.param(entry, name, id=f"{entry.name}-{name.replace(' ', '_')}")
    for entry in ZOO
    for name in CHECKS
    if entry.mappable or name not in BATCHED
]


@pytest.mark.parametrize(("entry", "name"), CELLS)
def test_function_runs_through_transform(entry, name):
    """Every derivative agrees with an oracle that does not use the library."""
    run_check(entry, name)


@pytest.mark.parametrize("entry", [e for e in ZOO if not e.mappable], ids=lambda e: e.name)
def test_vmap_refuses_branches_on_values_and_says_what_to_use(entry):
    """A branch on a mapped value is an error that names the cure, never a wrong answer."""
    case = Case(entry)
    with pytest.raises(gj.errors.ConcretizationError, match="where"):
        gj.vmap(case.g)(*case.batch())


def test_zoo_is_as_large_as_claimed():
    """At least 15 functions, each with its own name."""
    assert len({entry.name for entry in ZOO}) == len(ZOO) >= 18


@pytest.mark.parametrize("entry", ZOO, ids=lambda e: e.name)
def test_samples_are_seeded_and_float64(entry):
    """The same seed gives the same arguments, and nothing selected is an integer."""
    first, second = Case(entry), Case(entry)
    np.testing.assert_equal(first.args, second.args)
    assert all(np.asarray(x).dtype == np.float64 for x in _leaves(first.selected))


def _leaves(tree):
    if isinstance(tree, dict):
        return [x for value in tree.values() for x in _leaves(value)]
    if isinstance(tree, list | tuple):
        return [x for value in tree for x in _leaves(value)]
    return [tree]
