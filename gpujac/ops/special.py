"""Special functions: one row each, evaluated by SciPy, or by CuPy's version of it.

Slopes are other rows of the table (of gammaln digamma, of digamma Hurwitz's zeta), so every order is there.
"""

import math
from typing import Any

from gpujac.core.op import pointwise
from gpujac.ops.elementwise import divide, equal, exp, greater, guarded, less, log, log1p, logical_and, square, where

_ROOT_PI = math.sqrt(math.pi)
_ROOT_2PI = math.sqrt(2.0 * math.pi)
_GENERIC = {"generic": "the array API standard has no special functions"}
_NO_FORMULA = {"slope": "of Hurwitz's zeta only the derivative by its second operand has a formula"}


def _special(name: str, *slopes: Any, **fields: Any) -> Any:
    return pointwise(name, len(slopes), slopes=slopes, **{"refuses": _GENERIC, **fields})


def _no_formula(*_: Any) -> Any:
    raise zeta.missing("slope")


# The gamma function and its kin.
zeta = _special(
    "zeta", _no_formula, lambda s, q, y: -s * zeta(s + 1, q), low=0.3, high=4.0, kinds="tf",
    refuses={**_GENERIC, **_NO_FORMULA},
)  # fmt: skip
digamma = _special("digamma", lambda x, y: zeta(2.0, x), low=0.2, high=4.0)
gammaln = _special("gammaln", lambda x, y: digamma(x), low=0.2, high=4.0)
gamma = _special("gamma", lambda x, y: y * digamma(x), low=0.4, high=3.0)
betaln = _special(
    "betaln", lambda a, b, y: digamma(a) - digamma(a + b), lambda a, b, y: digamma(b) - digamma(a + b),
    low=0.3, high=3.0,
)  # fmt: skip

# The error function and the normal distribution.
_FAR = 30.0  # from here on six terms of a series in 1/x² are exact to rounding


def _erfcx_slope(x: Any, y: Any) -> Any:
    """2 x y - 2/√π; for large x, where the two terms cancel, -1/(√π x²) Σ (2k+1)!! (-1/(2x²))^k."""
    far = greater(x, _FAR)
    z = square(divide(1.0, where(far, x, _FAR)))
    total = 1.0
    for k in range(5, 0, -1):
        total = 1.0 - (k + 0.5) * z * total
    near = 2.0 * where(far, 0.0, x) * where(far, 0.0, y) - 2.0 / _ROOT_PI
    return where(far, total * z * (-1.0 / _ROOT_PI), near)


def _log_ndtr_slope(x: Any, y: Any) -> Any:
    """φ(x)/Φ(x); on the left as √(2/π)/erfcx(-x/√2), since the exponents -x²/2 and y cancel."""
    left = less(x, 0.0)
    below = divide(2.0 / _ROOT_2PI, erfcx(where(left, x, 0.0) * -math.sqrt(0.5)))
    x, y = where(left, 0.0, x), where(left, 0.0, y)
    return where(left, below, exp(-0.5 * square(x) - y) / _ROOT_2PI)


erf = _special("erf", lambda x, y: (2.0 / _ROOT_PI) * exp(-square(x)))
erfc = _special("erfc", lambda x, y: (-2.0 / _ROOT_PI) * exp(-square(x)))
erfinv = _special("erfinv", lambda x, y: (0.5 * _ROOT_PI) * exp(square(y)), singular=True, low=-0.9, high=0.9)
erfcinv = _special("erfcinv", lambda x, y: (-0.5 * _ROOT_PI) * exp(square(y)), singular=True, low=0.2, high=1.8)
erfcx = _special("erfcx", _erfcx_slope, low=-1.0)
ndtr = _special("ndtr", lambda x, y: exp(-0.5 * square(x)) / _ROOT_2PI)
ndtri = _special("ndtri", lambda x, y: _ROOT_2PI * exp(0.5 * square(y)), singular=True, low=0.1, high=0.9)
log_ndtr = _special("log_ndtr", _log_ndtr_slope)

# Logarithms with care.
logit = _special("logit", lambda x, y: divide(1.0, x * (1.0 - x)), singular=True, low=0.1, high=0.9)


def _ratio(x: Any, y: Any) -> Any:
    """x / y, and 0 where both are 0; the slope by x is 1 / y at x = 0, too."""
    both = logical_and(equal(x, 0), equal(y, 0))
    return guarded(divide(x, where(both, 1.0, y)), where(both, math.inf, 1.0))


def _log_ratio(x: Any, y: Any) -> Any:
    """log(x / y), in two parts where x = 0: there the slope by y is -1 / y, which the quotient loses."""
    zero = equal(x, 0)
    apart = log(where(zero, x, 1.0)) - log(where(zero, y, 1.0))
    return where(zero, apart, log(divide(where(zero, 1.0, x), where(zero, 1.0, y))))


xlogy = _special(
    "xlogy", lambda x, y, z: log(y), lambda x, y, z: _ratio(x, y), singular=True, low=0.2
)
xlog1py = _special(
    "xlog1py", lambda x, y, z: log1p(y), lambda x, y, z: _ratio(x, 1.0 + y), singular=True, low=-0.6
)
entr = _special("entr", lambda x, y: -log(x) - 1.0, singular=True, low=0.2)
rel_entr = _special(
    "rel_entr", lambda x, y, z: _log_ratio(x, y) + 1.0, lambda x, y, z: -_ratio(x, y), singular=True, low=0.2
)
kl_div = _special(
    "kl_div", lambda x, y, z: _log_ratio(x, y), lambda x, y, z: 1.0 - _ratio(x, y), singular=True, low=0.2
)
