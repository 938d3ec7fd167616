"""Every op of the catalogue and of the namespace, every rule, in every dtype and library."""

import pickle

import numpy as np
import pytest

import gpujac as gj
from gpujac.core.op import POINTWISE, STRUCTURAL, General, Joint, Linear, Op, pointwise
from gpujac.errors import MissingRuleError
from tests.ops import catalogue as cat
from tests.ops.checks import CHECKS, Run

COMBINATIONS = [
    ("float64", "numpy"),
    ("float32", "numpy"),
    ("complex128", "numpy"),
    ("float64", "strict"),
]
SLOW = [("complex64", "numpy"), ("float32", "strict"), ("complex128", "strict")]


def runs(name, dtype, library):
    """The runs of all samples of an op that make sense in a dtype and library."""
    if library == "strict" and cat.refusal(name, "generic"):
        return []
    return [Run(c, dtype, cat.LIBRARIES[library]) for c in cat.cases(name, library) if c.works_in(dtype)]


def rows(combinations, mark=()):
    return [
        pytest.param(name, dtype, library, id=f"{name}-{dtype}-{library}", marks=mark)
        for name in cat.NAMES
        for dtype, library in combinations
        if runs(name, dtype, library)
    ]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("name", "dtype", "library"), rows(COMBINATIONS) + rows(SLOW, pytest.mark.slow))
def test_every_rule_of_every_op(name, dtype, library, check):
    for run in runs(name, dtype, library):
        CHECKS[check](run)
