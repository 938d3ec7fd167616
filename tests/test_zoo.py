"""Claim: scientific functions written with plain NumPy run through every transform, unedited."""

from __future__ import annotations

import numpy as np
import optree
import pytest

import gpujac as gj
from tests.zoo import ZOO
from tests.zoo.checks import BATCHED, CHECKS, Case, close, run_check

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


@pytest.mark.parametrize("entry", [e for e in ZOO if e.mappable], ids=lambda e: e.name)
def test_float32_arguments_give_float32_derivatives(entry):
    """jacrev has the input's dtype and jacfwd the output's, whatever the function's constants."""
    case = Case(entry)
    single = optree.tree_map(lambda x: x.astype(np.float32), case.selected)
    everything = tuple(range(len(single)))
    wanted = optree.tree_leaves(gj.jacrev(case.g, argnums=everything)(*case.selected))
    reverse = optree.tree_leaves(gj.jacrev(case.g, argnums=everything)(*single))
    forward = optree.tree_leaves(gj.jacfwd(case.g, argnums=everything)(*single))
    inputs = len(optree.tree_leaves(single))
    outputs = [np.asarray(y).dtype for y in optree.tree_leaves(case.g(*single))]
    assert [j.dtype for j in reverse] == [np.float32] * len(wanted)
    assert [j.dtype for j in forward] == [dtype for dtype in outputs for _ in range(inputs)]
    for found in (reverse, forward):
        for a, b in zip(found, wanted, strict=True):
            close(a, b, 5e-3, "float32 against float64")


def test_zoo_is_as_large_as_claimed():
    """At least 15 functions, each with its own name."""
    assert len({entry.name for entry in ZOO}) == len(ZOO) >= 18


@pytest.mark.parametrize("entry", ZOO, ids=lambda e: e.name)
def test_samples_are_seeded_and_float64(entry):
    """The same seed gives the same arguments, and nothing selected is an integer."""
    first, second = Case(entry), Case(entry)
    np.testing.assert_equal(first.args, second.args)
    assert all(np.asarray(x).dtype == np.float64 for x in optree.tree_leaves(first.selected))
