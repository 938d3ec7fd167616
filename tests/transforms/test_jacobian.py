"""jacobian: the cheaper of the two modes."""

import numpy as np
import pytest

import gpujac as gj
from tests.transforms import helpers as h


def plan_of(f, *args, **options):
    seen = []
    gj.jacobian(f, report=seen.append, **options)(*args)
    plan = seen[0]
    return plan


@pytest.mark.parametrize(
    ("n", "m", "mode"), [(3, 3, "fwd"), (3, 2, "fwd"), (4, 2, "rev"), (9, 6, "fwd"), (10, 6, "rev"), (1, 50, "fwd")]
)  # fmt: skip
def test_auto_is_forward_up_to_one_and_a_half_times_as_many_inputs(n, m, mode):
    W = np.ones((m, n))
    plan = plan_of(lambda x: np.sin(W @ x), np.ones(n))
    assert plan.mode == mode
    assert plan.rows == (n if mode == "fwd" else m)


@pytest.mark.parametrize("mode", ["rev", "fwd"])
def test_a_mode_can_be_chosen(mode):
    assert plan_of(np.sin, np.ones(3), mode=mode).mode == mode


@pytest.mark.parametrize("mode", ["auto", "rev", "fwd"])
@pytest.mark.parametrize(("name", "f", "args"), h.SAMPLES, ids=h.IDS)
def test_every_mode_gives_the_same(mode, name, f, args):
    every = tuple(range(len(args)))
    found = gj.jacobian(f, every, mode=mode)(*args)
    h.assert_close(found, gj.jacrev(f, every)(*args))
