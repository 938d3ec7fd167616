"""User functions that recurse deeply, and programs too long to recurse over."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpujac as gj

ROOT = Path(__file__).parents[2]
DEEP = """
import sys
import numpy as np
import gpujac as gj

assert sys.getrecursionlimit() == 1000
X = np.array([0.1, 0.2, 0.3])

def f(x, n=900):
    return np.sin(x) * 0.9 + f(x * 1.01, n - 1) if n else x.sum() * x

def g(x, n=900):  # the deepest operations of ours, at the bottom
    if n == 0:
        z = np.zeros_like(x)
        z[0] = np.var(x)
        return z * np.concatenate([x, x])[:3] @ np.eye(3) + np.linalg.norm(x)
    return g(np.where(x > 0, x, x[::-1]) * 1.001, n - 1)

def loop(x, n=900):
    total = 0.0
    for _ in range(n):
        total, x = total + np.sin(x) * 0.9, x * 1.01
    return total + x.sum() * x

{call}
np.testing.assert_allclose(T(f)(X), T(loop)(X), rtol=1e-9)
T(g)(X)
"""
CALLS = {
    "grad": "T = lambda f: gj.grad(lambda x: f(x).sum())",
    "jvp": "T = lambda f: lambda x: gj.jvp(f, (x,), (x,))[1]",
    "vmap": "T = lambda f: lambda x: gj.vmap(f)(np.stack([x, 2 * x]))",
    "jacrev": "T = gj.jacrev",
    "jacfwd": "T = gj.jacfwd",
    "hessian": "T = lambda f: gj.hessian(lambda x: f(x).sum())",
    "vmap of hessian": "T = lambda f: lambda x: gj.vmap(gj.hessian(lambda x: f(x).sum()))(np.stack([x, 2 * x]))",
    "debug": "T = gj.jacrev; gj.settings.debug_nans = True",
}


ALL = "\n".join(
    f"{call}\nnp.testing.assert_allclose(T(f)(X), T(loop)(X), rtol=1e-9)\nT(g)(X)" for call in CALLS.values()
)


def test_in_every_transform_with_the_default_limit():
    script = DEEP.partition("{call}")[0] + ALL
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def chain(x, n=50_000):
    for _ in range(n):
        x = np.sin(x) + 1.0
    return x


SMALL = np.array([0.3, 0.7])


@pytest.mark.parametrize(
    "call",
    [lambda: gj.grad(lambda x: chain(x).sum())(SMALL), lambda: gj.jacrev(chain)(SMALL), lambda: gj.jacfwd(chain)(SMALL),
     lambda: gj.linearize(chain, SMALL)[1](SMALL)],
    ids=["grad", "jacrev", "jacfwd", "linearize"],
)  # fmt: skip
def test_programs_of_100_000_entries_sweep_without_recursion(call):
    depth = 0
    limit = sys.getrecursionlimit()
    frame = sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(depth + 60)
    try:
        found = call()
    finally:
        sys.setrecursionlimit(limit)
    assert np.isfinite(found).all()


def test_merging_and_showing_long_programs_needs_no_recursion():
    J = gj.jacfwd(lambda x: chain(x, 10_000))(np.full(300, 0.3))  # wide enough to merge entries first
    assert J.shape == (300, 300)
    text = str(gj.show(lambda x: chain(x, 10_000))(SMALL))
    assert "entries: 20001" in text
