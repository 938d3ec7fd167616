"""Every op of the catalogue and of the namespace, every rule, in every dtype and library."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

import gpujac as gj
from gpujac.core.decompose import find
from gpujac.core.op import POINTWISE, STRUCTURAL, General, Joint, Linear, Op, pointwise
from gpujac.errors import MissingRuleError
from gpujac.ops import elementwise
from tests.ops import catalogue as cat
from tests.ops.checks import CHECKS, Run

COMBINATIONS = [
    ("float64", "numpy"),
    ("float32", "numpy"),
    ("complex128", "numpy"),
    ("float64", "strict"),
]
SLOW = [("complex64", "numpy"), ("float32", "strict"), ("complex128", "strict")]
if "cupy" in cat.LIBRARIES:
    COMBINATIONS += [("float64", "cupy")]
    SLOW += [(dtype, "cupy") for dtype in ("float32", "complex128", "complex64")]
NUMPY = [c for c in COMBINATIONS if c[1] == "numpy"]
OTHERS = [c for c in COMBINATIONS + SLOW if c not in NUMPY]


def runs(name, dtype, library):
    """The runs of all samples of an op that make sense in a dtype and library."""
    if cat.refusal(name, {"strict": "generic"}.get(library, library)):
        return []
    return [Run(c, dtype, cat.LIBRARIES[library]) for c in cat.cases(name, library) if c.works_in(dtype)]


def rows(quick, slow=()):
    compiled = ("fused", "cupy")  # a kernel per sample, which g++ compiles where there is no card
    return [
        pytest.param(name, dtype, library, id=f"{name}-{dtype}-{library}",
                     marks=pytest.mark.slow if (name, library) == compiled else marks)
        for combinations, marks in ((quick, ()), (slow, pytest.mark.slow))
        for name in cat.NAMES
        for dtype, library in combinations
        if runs(name, dtype, library)
    ]


def check(names, name, dtype, library):
    for run in runs(name, dtype, library):
        for each in names.split():
            CHECKS[each](run)


@pytest.mark.parametrize(("name", "dtype", "library"), rows(COMBINATIONS, SLOW))
def test_values_agree_with_numpy(name, dtype, library):
    check("value infer leading depends", name, dtype, library)


@pytest.mark.parametrize(("name", "dtype", "library"), rows(COMBINATIONS, SLOW))
def test_derivatives_of_first_and_second_order_agree_with_the_oracles(name, dtype, library):
    check("jvp linearize vjp transpose second_order", name, dtype, library)


@pytest.mark.parametrize(("name", "dtype", "library"), rows(COMBINATIONS, SLOW))
def test_batches_equal_loops(name, dtype, library):
    check("batch batch_leading", name, dtype, library)


@pytest.mark.parametrize(("name", "dtype", "library"), rows(NUMPY, OTHERS))
def test_batches_of_batches_equal_two_loops(name, dtype, library):
    check("batch_of_batch", name, dtype, library)


@pytest.mark.parametrize(("name", "dtype", "library"), rows(NUMPY, OTHERS))
def test_jacobians_agree_in_both_modes_in_chunks_and_in_batches(name, dtype, library):
    check("jacobians", name, dtype, library)


# ---------------------------------------------------------------- the rule matrix

OWED = {
    Linear: ("evaluate", "infer", "transposed", "depends", "samples"),
    Joint: ("evaluate", "infer", "parts", "restricted", "ranks", "depends", "samples"),
    General: ("evaluate", "infer", "depends", "samples"),
}


def owed(cls):
    """The rules that a class of ops must have, by its kind."""
    base = next(kind for kind in OWED if issubclass(cls, kind))
    rules = [(rule, base) for rule in OWED[base]]
    if base is General and not cls.flat and not cls.composite:  # of a composite op the decomposition owes them
        rules += [("jvp", General)] if cls.nonlinear else []
        rules += [("transpose", General)] if cls.linear_in else []
    if base is General and not getattr(cls, "leading", False):
        rules += [("batch", General)]
    return rules


def inherited(cls, rule, base):
    """Whether a class has only the placeholder of its kind for a rule."""
    return getattr(cls, rule) is getattr(base, rule) and (
        rule not in vars(base) or rule in ("evaluate", "transposed", "parts", "restricted", "ranks")
        or (base is General and rule in ("jvp", "transpose", "batch", "infer"))
    )  # fmt: skip


@pytest.mark.parametrize("cls", STRUCTURAL, ids=lambda cls: cls.__name__)
def test_an_op_has_each_rule_it_owes_or_says_why_not(cls):
    missing = [rule for rule, base in owed(cls) if inherited(cls, rule, base)]
    assert [rule for rule in missing if rule not in cls.refuses] == []
    assert cls.samples(), "no samples"
    assert not getattr(cls, "composite", False) or find(cls.name) is not None, "no decomposition"
    assert cls.__doc__


@pytest.mark.parametrize("op", POINTWISE.values(), ids=lambda op: op.name)
def test_an_elementwise_op_has_a_slope_per_operand_or_is_flat(op):
    assert op.flat or len(op.slopes) == op.arity
    assert not any(s is not None and s.__name__ == "absent" for s in op.slopes)


def test_names_in_the_catalogue_are_unique():
    assert len(set(cat.NAMES)) == len(cat.NAMES)
    assert not set(POINTWISE) & set(cat.STRUCTURAL_NAMES)


@pytest.mark.parametrize("name", [*POINTWISE, *cat.STRUCTURAL_NAMES])
def test_ops_are_picklable(name):
    for case in cat.cases(name):
        again = pickle.loads(pickle.dumps(case.op))
        if name in POINTWISE:
            assert again is case.op
        else:
            assert again == case.op
            assert hash(again) == hash(case.op)


@pytest.mark.parametrize("name", cat.STRUCTURAL_NAMES)
def test_an_op_shows_its_parameters(name):
    for case in cat.cases(name):
        assert repr(case.op).startswith(type(case.op).__name__ + "(")


# ---------------------------------------------------------------- missing rules


@dataclass(frozen=True)
class Lonely(Linear):
    """A linear op whose transpose nobody has written."""

    name = "lonely"
    refuses = {"transpose": "it was never needed"}  # noqa: RUF012 (as the ops declare it)

    def evaluate(self, be, x):
        return x


@dataclass(frozen=True)
class Opaque(General):
    """A nonlinear op without any rule."""

    name = "opaque"
    nonlinear = True

    def evaluate(self, be, x):
        return x * x


LONELY, OPAQUE = Lonely((), ()), Opaque()


def test_a_missing_transpose_names_op_rule_and_reason():
    with pytest.raises(MissingRuleError, match="lonely has no transpose rule: it was never needed"):
        gj.grad(lambda x: LONELY(x))(1.0)
    assert gj.jvp(lambda x: LONELY(x), (1.0,), (2.0,))[1] == 2.0


def test_a_missing_jvp_names_op_rule_and_reason():
    for transform in (gj.grad, lambda f: lambda x: gj.jvp(f, (x,), (x,))):
        with pytest.raises(MissingRuleError, match="opaque has no jvp rule: no such rule is written"):
            transform(lambda x: OPAQUE(x))(1.0)


def test_a_missing_batch_rule_names_op_rule_and_reason():
    with (
        gj.settings.override(missing_batch_rule="raise"),
        pytest.raises(MissingRuleError, match="opaque has no batch rule: no such rule is written"),
    ):
        gj.vmap(lambda x: OPAQUE(x))(np.ones(3))


def test_a_missing_batch_rule_is_a_loop_that_says_it_is_slow():
    x = np.arange(12.0).reshape(3, 4)
    for axis in (0, 1):
        with pytest.warns(RuntimeWarning, match="^vmap of <lambda>: opaque has no batch rule, so it runs once"):
            y = gj.vmap(lambda x: OPAQUE(x), in_dims=axis, out_dims=axis)(x)
        assert np.array_equal(y, x * x)
    with pytest.warns(RuntimeWarning, match="opaque"):
        y = gj.vmap(gj.vmap(lambda x: OPAQUE(x)))(x)
    assert np.array_equal(y, x * x)


def test_a_missing_slope_names_op_rule_and_reason():
    half = pointwise("power", 2, slopes=(lambda a, b, y: b * a ** (b - 1),))
    POINTWISE["power"] = elementwise.power
    assert gj.grad(lambda x: half(x, 2.0))(3.0) == 6.0
    with pytest.raises(MissingRuleError, match="power has no slope rule"):
        gj.grad(lambda x: half(2.0, x))(3.0)


def test_every_missing_rule_is_an_error_of_its_own():
    op = Op()
    op.name = "bare"
    for call in (lambda: op.evaluate(None), lambda: op.infer(), lambda: op.depends()):
        with pytest.raises(NotImplementedError):
            call()
