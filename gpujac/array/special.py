"""Functions of scipy.special with its signatures: those of the table of ops, and what they make up."""

import math
import operator
from typing import Any

from gpujac.array import common as c
from gpujac.array import reduce
from gpujac.backends.host import OF_SCIPY
from gpujac.errors import ArgumentError
from gpujac.ops import elementwise as ew
from gpujac.ops import special as sp

NAMES = tuple(sorted(OF_SCIPY))  # those that are ops


def zeta(x: Any, q: Any = None, out: Any = None) -> Any:
    """Hurwitz's zeta function; with one argument Riemann's."""
    c.refuse("zeta", out=out)
    return sp.zeta(*c.together(x, 1.0 if q is None else q))


def psi(x: Any) -> Any:
    """Derivative of the logarithm of the gamma function."""
    return sp.digamma(x)


def polygamma(n: Any, x: Any) -> Any:
    """The n-th derivative of digamma."""
    n = operator.index(n)
    if n < 0:
        raise ArgumentError(f"polygamma: n={n} is negative")
    size = math.gamma(n + 1) if n <= 170 else math.inf  # beyond 170 it overflows, as SciPy's does
    return sp.digamma(x) if n == 0 else (-1.0) ** (n + 1) * size * sp.zeta(n + 1, x)


def log_softmax(x: Any, axis: Any = None) -> Any:
    """Logarithm of softmax along `axis` (all entries by default), without overflow."""
    x = c.floating(c.lift(x))
    return x - reduce.logsumexp(x, axis, keepdims=True)


def softmax(x: Any, axis: Any = None) -> Any:
    """Exponentials divided by their sum along `axis` (all entries by default)."""
    return ew.exp(log_softmax(x, axis))
