"""The rules that serve planned sweeps: a result as a view, written into an array, added to one."""

import numpy as np
import pytest

from gpujac.backends.host import HOST
from gpujac.core.op import STRUCTURAL, Joint, Linear, Op

RNG = np.random.default_rng(11)
MATTERS = [c for c in STRUCTURAL if issubclass(c, (Linear, Joint)) or c.linear_in]
WRITERS = [c for c in MATTERS if c.write is not Op.write]


def operands_of(sample, rows):
    """Operands with rows in front of the first, as in a sweep."""
    made = []
    for p, (shape, kind) in enumerate(zip(sample.shapes, sample.kinds, strict=True)):
        lead = rows if p == 0 or isinstance(sample.call, Joint) else ()
        x = RNG.normal(size=(*lead, *shape))
        made.append(RNG.integers(-3, 3, shape) if kind == "n" else x + 1j * x[..., ::-1] if kind == "c" else x)
    return made


def cases(classes):
    return [pytest.param(s, id=f"{c.name}-{i}") for c in classes for i, s in enumerate(c.samples())]


@pytest.mark.parametrize("rows", [(1,), (3,)])
@pytest.mark.parametrize("sample", cases(WRITERS))
def test_a_written_result_is_the_evaluated_one(sample, rows):
    op, operands = sample.call, operands_of(sample, rows)
    wanted = np.asarray(op.evaluate(HOST, *operands))
    out = np.full(wanted.shape, np.nan, wanted.dtype)
    op.write(HOST, out, *operands)
    np.testing.assert_allclose(out, wanted, rtol=1e-13, atol=1e-13)
    if op.in_place:
        out = operands[0].copy()
        op.write(HOST, out, out, *operands[1:])
        np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("sample", cases([c for c in MATTERS if c.accumulates]))
def test_an_accumulated_result_is_added_to_what_is_there(sample):
    op, operands = sample.call, operands_of(sample, (3,))
    wanted = op.evaluate(HOST, *operands)
    before = RNG.normal(size=wanted.shape)
    out = before.copy()
    op.accumulate(HOST, out, *operands)
    np.testing.assert_allclose(out, before + wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("sample", cases([c for c in MATTERS if issubclass(c, Linear)]))
def test_a_view_is_the_result_and_shares_its_memory(sample):
    op, (x,) = sample.call, operands_of(sample, (3,))
    found = op.view(x)
    if found is None:
        assert not op.views
        return
    np.testing.assert_array_equal(found, op.evaluate(HOST, x))
    assert np.shares_memory(found, x)


def test_an_op_says_that_it_has_an_accumulate_where_it_has_one():
    for cls in STRUCTURAL:
        assert cls.accumulates == (cls.accumulate is not Op.accumulate), cls
