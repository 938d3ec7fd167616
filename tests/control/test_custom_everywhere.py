"""Functions and operations with rules of their own under every transform and pairs of them, on every library.

The oracle is the same function without rules, whose derivatives other tests prove.
"""

from collections.abc import Iterator
from typing import Any

import array_api_strict as xps
import numpy as np
import optree
import pytest

import gpujac as gj
from tests import device
from tests.control.custom_zoo import CALLS, EVERY, FUNCTIONS, library, plain
from tests.oracles import close_trees as assert_close_trees

N = 3
X, Y = np.array([0.3, -0.5, 0.7]), np.array([2.0, 1.0, -3.0])
XS, YS = np.linspace(-1, 1, 2 * N).reshape(2, N), np.linspace(1, 3, 2 * N).reshape(2, N)



def total(y: Any) -> Any:
    """The sum of all entries in any library."""
    return library(y).sum(y)


def scalar(f: Any) -> Any:
    """f as a function with a scalar value; a traced array stands left of a plain one, as the standard's refuse it."""
    return lambda x, y: total(f(x, y) * f(x, y)) + total(f(x, y) * x)


# name: (transform of f, how many lanes its arguments have)
CASES: dict[str, Any] = {
    "f": (lambda f: f, 0),
    "grad": (lambda f: gj.grad(scalar(f), argnums=(0, 1)), 0),
    "grad of grad": (lambda f: gj.grad(lambda x, y: total(gj.grad(scalar(f))(x, y) * y)), 0),
    "value_and_grad with aux": (
        lambda f: gj.value_and_grad(lambda x, y: (scalar(f)(x, y), {"aux": f(x, y)}), argnums=1, has_aux=True), 0,
    ),
    "vjp": (lambda f: lambda x, y: gj.vjp(f, x, y)[1](x * y), 0),
    "jvp": (lambda f: lambda x, y: gj.jvp(f, (x, y), (y, x)), 0),
    "jvp of one argument": (lambda f: lambda x, y: gj.jvp(lambda v: f(v, y), (x,), (y,)), 0),
    "linearize": (lambda f: lambda x, y: gj.linearize(f, x, y)[1](y, x), 0),
    "jacrev": (lambda f: gj.jacrev(f, argnums=(0, 1)), 0),
    "jacrev row by row": (lambda f: gj.jacrev(f, argnums=(0, 1), chunk_size=1), 0),
    "jacrev by twos": (lambda f: gj.jacrev(f, argnums=1, chunk_size=2), 0),
    "jacfwd": (lambda f: gj.jacfwd(f, argnums=(0, 1)), 0),
    "jacfwd by twos": (lambda f: gj.jacfwd(f, chunk_size=2), 0),
    "jacobian of an argument twice": (lambda f: gj.jacrev(lambda x, y: f(x, f(x, y))), 0),
    "hessian": (lambda f: gj.hessian(scalar(f), argnums=(0, 1)), 0),
    "jacfwd of jacrev": (lambda f: gj.jacfwd(gj.jacrev(f, argnums=1)), 0),
    "jacrev of jacfwd": (lambda f: gj.jacrev(gj.jacfwd(f, argnums=1)), 0),
    "jacrev of jacrev": (lambda f: gj.jacrev(gj.jacrev(f)), 0),
    "jacfwd of jacfwd": (lambda f: gj.jacfwd(gj.jacfwd(f)), 0),
    "third order": (lambda f: gj.jacfwd(gj.hessian(scalar(f))), 0),
    "vjp of jvp": (lambda f: lambda x, y: gj.vjp(lambda v: gj.jvp(f, (v, y), (y, v))[1], x)[1](y), 0),
    "jvp of vjp": (lambda f: lambda x, y: gj.jvp(lambda v: gj.vjp(f, v, y)[1](v)[1], (x,), (y,)), 0),
    "vmap": (lambda f: gj.vmap(f), 1),
    "vmap in chunks": (lambda f: gj.vmap(f, chunk_size=1), 1),
    "vmap over other axes": (lambda f: gj.vmap(f, in_dims=(1, 0), out_dims=1), 2),
    "vmap of vmap": (lambda f: gj.vmap(gj.vmap(f), in_dims=(1, 1)), 1),
    "vmap of grad": (lambda f: gj.vmap(gj.grad(scalar(f), argnums=(0, 1))), 1),
    "vmap of jacrev": (lambda f: gj.vmap(gj.jacrev(f, argnums=(0, 1), chunk_size=2)), 1),
    "vmap of jacfwd": (lambda f: gj.vmap(gj.jacfwd(f, chunk_size=2)), 1),
    "vmap of hessian": (lambda f: gj.vmap(gj.hessian(scalar(f))), 1),
    "vmap of jvp": (lambda f: gj.vmap(lambda x, y: gj.jvp(f, (x, y), (y, x))), 1),
    "grad of vmap": (lambda f: gj.grad(lambda x, y: total(gj.vmap(f)(x, y) * x), argnums=(0, 1)), 1),
    "grad of vmap with a shared argument": (
        lambda f: gj.grad(lambda x, y: total(gj.vmap(f, in_dims=(0, None))(x, y[0]) * x), argnums=(0, 1)), 1,
    ),
    "jacrev of vmap": (lambda f: gj.jacrev(gj.vmap(f, in_dims=(None, 0)), argnums=(0, 1)), 3),
    "jacfwd of vmap": (lambda f: gj.jacfwd(gj.vmap(f, in_dims=(None, 0)), argnums=(0, 1)), 3),
    "jvp of vmap": (lambda f: lambda x, y: gj.jvp(gj.vmap(f), (x, y), (y, x)), 1),
    "grad of vmap of grad": (
        lambda f: gj.grad(lambda x, y: total(gj.vmap(gj.grad(scalar(f)))(x, y))), 1,
    ),
    "hessian of vmap": (lambda f: gj.hessian(lambda x, y: total(gj.vmap(f, in_dims=(None, 0))(x, y) ** 2)), 3),
    "vmap of grad of vmap": (
        lambda f: gj.vmap(gj.grad(lambda x, y: total(gj.vmap(f, in_dims=(0, None))(x, y))), in_dims=(None, 0)), 1,
    ),
    "an argument of an outer level in a rule": (
        lambda f: gj.grad(lambda x, y: total(gj.grad(lambda v: total(f(v, x) * y))(y))), 0,
    ),
}  # fmt: skip
ARGUMENTS = {0: (X, Y), 1: (XS, YS), 2: (XS.T.copy(), YS), 3: (X, YS)}
LIBRARIES = {
    "numpy": (lambda x: x, lambda x: x),
    "cupy": (device.array, device.host),
    "strict": (xps.asarray, np.asarray),
}


@pytest.fixture(autouse=True)
def plain_kernels() -> Iterator[None]:
    """Nothing is compiled here."""
    before = gj.settings.kernels
    gj.settings.kernels = "off"
    yield
    gj.settings.kernels = before


def computed(case: str, f: Any, there: Any, back: Any) -> Any:
    transform, lanes = CASES[case]
    found = transform(f)(*[there(x) for x in ARGUMENTS[lanes]])
    return optree.tree_map(back, found)


@pytest.mark.filterwarnings("ignore:vmap of .*zoo..looped has no batch rule:RuntimeWarning")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", EVERY)
def test_rules_agree_with_the_function_itself(way: str, case: str) -> None:
    same = LIBRARIES["numpy"]
    assert_close_trees(computed(case, EVERY[way], *same), computed(case, plain, *same), 1e-11, f"{way}: {case}")


@pytest.mark.filterwarnings("ignore:vmap of .*zoo..looped has no batch rule:RuntimeWarning")
@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", EVERY)
def test_rules_agree_on_cupy_arrays(way: str, case: str) -> None:
    found = computed(case, EVERY[way], *LIBRARIES["cupy"])
    assert_close_trees(found, computed(case, plain, *LIBRARIES["numpy"]), 1e-10, f"{way}: {case}")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", FUNCTIONS)
def test_rules_agree_on_arrays_of_the_standard(way: str, case: str) -> None:
    found = computed(case, FUNCTIONS[way], *LIBRARIES["strict"])
    assert_close_trees(found, computed(case, plain, *LIBRARIES["numpy"]), 1e-11, f"{way}: {case}")


USED = {
    "jvp": {"jvp": "jvp", "vjp": "jvp"},
    "vjp": {"jvp": "fwd bwd", "vjp": "fwd bwd"},
    "both": {"jvp": "jvp", "vjp": "fwd bwd"},
    "all": {"jvp": "jvp", "vjp": "fwd bwd", "vmap": "vmap"},
    "op backward": {"jvp": "backward", "vjp": "backward", "vmap": "vmap"},
    "op jvp": {"jvp": "tangents", "vjp": "tangents", "vmap": "vmap"},
}


@pytest.mark.parametrize(("way", "transform"), [(w, t) for w, used in USED.items() for t in used])
def test_the_rule_that_is_there_is_the_one_that_runs(way: str, transform: str) -> None:
    arguments = ARGUMENTS[CASES[transform][1]]
    CALLS.clear()
    CASES[transform][0](EVERY[way])(*arguments)
    assert sorted(set(CALLS)) == sorted(USED[way][transform].split())


@pytest.mark.parametrize("way", ["both", "all"])
def test_with_both_rules_forward_sweeps_push_and_reverse_sweeps_pull(way: str) -> None:
    CALLS.clear()
    gj.jacrev(FUNCTIONS[way])(X, Y)
    assert set(CALLS) == {"fwd", "bwd"}
    CALLS.clear()
    gj.jacfwd(FUNCTIONS[way])(X, Y)
    assert sorted(set(CALLS)) == ["fwd", "jvp"]


@pytest.mark.parametrize("rows", [None, 1, 2])
def test_a_sweep_calls_the_cotangent_rule_once_per_chunk_of_rows(rows: Any) -> None:
    CALLS.clear()
    gj.jacrev(FUNCTIONS["vjp"], chunk_size=rows)(X, Y)
    assert ["fwd"] + ["bwd"] * (1 if rows is None else -(-N // rows)) == CALLS
