"""Random programs: jvp against differences, vjp against jvp, vmap against a loop, both Jacobians."""

import numpy as np
import pytest

import gpujac as gj
from tests import fuzz

QUICK, LONG, GROUP = 200, 4000, 20


def check_group(first):
    checked = sum(fuzz.run(seed) for seed in range(first, first + GROUP))
    assert checked >= 0.8 * GROUP, f"only {checked} of {GROUP} programs are smooth enough to check"


@pytest.mark.parametrize("first", range(0, QUICK, GROUP))
def test_random_programs_pass_every_check(first):
    check_group(first)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(QUICK, LONG, GROUP))
def test_many_more_random_programs_pass_every_check(first):
    check_group(first)


def test_programs_are_the_same_every_time():
    assert fuzz.Program(3).text == fuzz.Program(3).text


def test_programs_use_every_family():
    texts = "\n".join(fuzz.Program(seed).text for seed in range(300))
    for family in ("@", "np.where", ".sum(", "zeros_like", "[", "np.concatenate", "np.linalg", " if "):
        assert family in texts


def test_a_failure_names_the_seed_and_shows_the_program(monkeypatch):
    monkeypatch.setattr(fuzz, "check", lambda program: 1 / 0)
    with pytest.raises(ZeroDivisionError) as raised:
        fuzz.run(7)
    assert raised.value.__notes__[0].startswith("fuzz seed 7, inputs ")
    assert fuzz.Program(7).text in raised.value.__notes__[0]


def test_plain_rows_of_a_batched_jacobian_survive_traced_ones():
    # found by seed 281: the first chunk's rows are constants, those of later chunks are not
    def f(x, a):
        return a + x, x[0] * a

    x, a = np.arange(18.0).reshape(2, 3, 3), np.arange(6.0).reshape(2, 3) + 1
    for transform in (gj.jacfwd, gj.jacrev):
        found = gj.vmap(transform(f, (0, 1), chunk_size=2))(x, a)
        for lane in range(2):
            wanted = transform(f, (0, 1))(x[lane], a[lane])
            for row, rows in zip(found, wanted, strict=True):
                for block, other in zip(row, rows, strict=True):
                    np.testing.assert_array_equal(block[lane], other)
