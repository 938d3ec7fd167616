"""Elementwise functions: one row each, the slope is the whole derivative.

A slope takes the operands and the result and returns d result / d operand; None means 1.
Values at kinks: abs'(0) = 0, ties of maximum and minimum split evenly, clip passes inside the
closed interval, x**0 has slope 0 at 0, hypot and sinc have slope 0 at 0.
"""

import math
from typing import Any

from gpujac.core.op import Mask, pointwise

_LN2 = math.log(2.0)
_LN10 = math.log(10.0)

# Arithmetic. `jointly`: linear in both operands at once; `linear`: in each one for itself.
add = pointwise("add", 2, slopes=(None, None), jointly=True, complex_ok=True)
subtract = pointwise(
    "subtract", 2, slopes=(None, lambda a, b, y: -1), jointly=True, complex_ok=True
)
multiply = pointwise(
    "multiply", 2, slopes=(lambda a, b, y: b, lambda a, b, y: a), linear=(True, True),
    complex_ok=True,
)  # fmt: skip
divide = pointwise(
    "divide", 2, slopes=(lambda a, b, y: divide(1, b), lambda a, b, y: divide(-y, b)),
    linear=(True, False), singular=True, tame=lambda a, b: type(b) in (int, float) and b != 0,
    low=0.5, complex_ok=True,
)  # fmt: skip
negative = pointwise(
    "negative", 1, slopes=(lambda x, y: -1,), jointly=True, complex_ok=True
)
positive = pointwise("positive", 1, slopes=(None,), jointly=True, complex_ok=True)

# where and masks select, they never multiply.
where = pointwise(
    "where", 3,
    slopes=(None, lambda c, a, b, y: Mask(c), lambda c, a, b, y: Mask(logical_not(c))),
    jointly=True, complex_ok=True, kinds="bff",
)  # fmt: skip
# t * c where t != 0, else 0: the product with a coefficient that may be infinite, whose own
# derivative may be infinite too, so where t == 0 it is left out and not multiplied by 0.
guarded = pointwise(
    "guarded", 2, slopes=(lambda t, c, y: c, lambda t, c, y: Mask(not_equal(t, 0), t)), linear=(True, True),
    singular=True, complex_ok=True,
)  # fmt: skip


def _power_of_base(a: Any, b: Any, y: Any) -> Any:
    # d(a**b) / da = b a**(b-1), and 0 for a = b = 0
    if type(b) in (int, float):
        return 0.0 if b == 0 else 2 * a if b == 2 else b * power(a, b - 1)
    zero = logical_and(equal(a, 0), equal(b, 0))
    return multiply(b, power(where(zero, 1.0, a), b - 1))


def _power_of_exponent(a: Any, b: Any, y: Any) -> Any:
    # d(a**b) / db = a**b log a, and 0 for a = 0
    zero = equal(a, 0)
    return where(zero, 0.0, y * log(where(zero, 1.0, a)))


power = pointwise(
    "power", 2, slopes=(_power_of_base, _power_of_exponent), singular=True,
    tame=lambda a, b: type(b) in (int, float) and b >= 1, low=0.3,
    complex_ok=True,
)  # fmt: skip
remainder = pointwise(
    "remainder", 2, slopes=(None, lambda a, b, y: -floor_divide(a, b)), low=0.3,
)  # fmt: skip
floor_divide = pointwise("floor_divide", 2, flat=True, low=0.5)
fmod = pointwise("fmod", 2, slopes=(None, lambda a, b, y: -trunc(divide(a, b))), low=0.3)

# Exponentials, logarithms, roots.
exp = pointwise("exp", 1, slopes=(lambda x, y: y,), complex_ok=True)
exp2 = pointwise("exp2", 1, slopes=(lambda x, y: y * _LN2,))
expm1 = pointwise("expm1", 1, slopes=(lambda x, y: y + 1,), complex_ok=True)
log = pointwise(
    "log", 1, slopes=(lambda x, y: divide(1, x),), singular=True, low=0.2, complex_ok=True,
)  # fmt: skip
log2 = pointwise("log2", 1, slopes=(lambda x, y: divide(1 / _LN2, x),), singular=True, low=0.2)
log10 = pointwise("log10", 1, slopes=(lambda x, y: divide(1 / _LN10, x),), singular=True, low=0.2)
log1p = pointwise(
    "log1p", 1, slopes=(lambda x, y: divide(1, 1 + x),), singular=True, low=-0.6, complex_ok=True
)
sqrt = pointwise(
    "sqrt", 1, slopes=(lambda x, y: divide(0.5, y),), singular=True, low=0.2, complex_ok=True,
)  # fmt: skip
cbrt = pointwise("cbrt", 1, slopes=(lambda x, y: divide(1 / 3, y * y),), singular=True, low=0.2)
square = pointwise("square", 1, slopes=(lambda x, y: 2 * x,), complex_ok=True)
reciprocal = pointwise(
    "reciprocal", 1, slopes=(lambda x, y: -(y * y),), singular=True, low=0.5, complex_ok=True
)
logaddexp = pointwise(
    "logaddexp", 2, slopes=(lambda a, b, y: exp(a - y), lambda a, b, y: exp(b - y)), singular=True
)
logistic = pointwise("logistic", 1, slopes=(lambda x, y: y * (1 - y),))

# Trigonometric and hyperbolic.
sin = pointwise("sin", 1, slopes=(lambda x, y: cos(x),), complex_ok=True)
cos = pointwise("cos", 1, slopes=(lambda x, y: -sin(x),), complex_ok=True)
tan = pointwise("tan", 1, slopes=(lambda x, y: 1 + y * y,), low=-1.2, high=1.2, complex_ok=True)
arcsin = pointwise(
    "arcsin", 1, slopes=(lambda x, y: divide(1, sqrt(1 - x * x)),), singular=True, low=-0.9,
    high=0.9, complex_ok=True,
)  # fmt: skip
arccos = pointwise(
    "arccos", 1, slopes=(lambda x, y: divide(-1, sqrt(1 - x * x)),), singular=True, low=-0.9,
    high=0.9, complex_ok=True,
)  # fmt: skip
arctan = pointwise("arctan", 1, slopes=(lambda x, y: divide(1, 1 + x * x),), complex_ok=True)
arctan2 = pointwise(
    "arctan2", 2,
    slopes=(
        lambda a, b, y: divide(b, a * a + b * b),
        lambda a, b, y: divide(-a, a * a + b * b),
    ),
    singular=True, low=0.2,
)  # fmt: skip
sinh = pointwise("sinh", 1, slopes=(lambda x, y: cosh(x),), complex_ok=True)
cosh = pointwise("cosh", 1, slopes=(lambda x, y: sinh(x),), complex_ok=True)
tanh = pointwise("tanh", 1, slopes=(lambda x, y: 1 - y * y,), complex_ok=True)
arcsinh = pointwise(
    "arcsinh", 1, slopes=(lambda x, y: divide(1, sqrt(1 + x * x)),), complex_ok=True
)
arccosh = pointwise(
    "arccosh", 1, slopes=(lambda x, y: divide(1, sqrt(x - 1) * sqrt(x + 1)),), singular=True,
    low=1.2, high=3.0, complex_ok=True,
)  # fmt: skip
arctanh = pointwise(
    "arctanh", 1, slopes=(lambda x, y: divide(1, 1 - x * x),), singular=True, low=-0.9, high=0.9,
    complex_ok=True,
)  # fmt: skip


def _sinc_slope(x: Any, y: Any) -> Any:
    # d(sin u / u) = (cos u - sin u / u) / u du with u = pi x, and its series where that cancels
    u = math.pi * x
    s = u * u
    near = less(s, 0.25)
    series = -1 / 3 + s * (1 / 30 + s * (-1 / 840 + s * (1 / 45360 + s * (-1 / 3991680 + s / 518918400))))
    return where(near, math.pi * u * series, divide(cos(u) - y, where(near, 1.0, x)))


sinc = pointwise("sinc", 1, slopes=(_sinc_slope,))
hypot = pointwise(
    "hypot", 2,
    slopes=(lambda a, b, y: divide(a, _not_zero(y)), lambda a, b, y: divide(b, _not_zero(y))),
)  # fmt: skip


def _not_zero(x: Any) -> Any:
    return where(equal(x, 0), 1.0, x)


def _share(wins: Any, ties: Any) -> Mask:
    # 1 where the operand wins, one half where both tie
    return Mask(logical_or(wins, ties), where(ties, 0.5, 1.0))


absolute = pointwise(
    "absolute", 1, slopes=(lambda x, y: Mask(not_equal(x, 0), where(less(x, 0), -1.0, 1.0)),),
)  # fmt: skip
maximum = pointwise(
    "maximum", 2,
    slopes=(
        lambda a, b, y: _share(greater(a, b), equal(a, b)),
        lambda a, b, y: _share(greater(b, a), equal(a, b)),
    ),
)  # fmt: skip
minimum = pointwise(
    "minimum", 2,
    slopes=(
        lambda a, b, y: _share(less(a, b), equal(a, b)),
        lambda a, b, y: _share(less(b, a), equal(a, b)),
    ),
)  # fmt: skip
fmax = pointwise(
    "fmax", 2,
    slopes=(
        lambda a, b, y: _share(logical_or(greater(a, b), isnan(b)), equal(a, b)),
        lambda a, b, y: _share(logical_or(greater(b, a), isnan(a)), equal(a, b)),
    ),
)  # fmt: skip
fmin = pointwise(
    "fmin", 2,
    slopes=(
        lambda a, b, y: _share(logical_or(less(a, b), isnan(b)), equal(a, b)),
        lambda a, b, y: _share(logical_or(less(b, a), isnan(a)), equal(a, b)),
    ),
)  # fmt: skip
clip = pointwise(
    "clip", 3,
    slopes=(
        lambda x, low, high, y: Mask(logical_and(less_equal(low, x), less_equal(x, high))),
        lambda x, low, high, y: Mask(logical_and(less(x, low), less_equal(low, high))),
        lambda x, low, high, y: Mask(less(high, maximum(x, low))),
    ),
)  # fmt: skip
copysign = pointwise(
    "copysign", 2, slopes=(lambda a, b, y: sign(a) * copysign(1.0, b), lambda a, b, y: 0.0)
)
nextafter = pointwise("nextafter", 2, slopes=(None, lambda a, b, y: 0.0))

# Piecewise constant: the derivative is zero, results are plain.
sign = pointwise("sign", 1, flat=True)
floor = pointwise("floor", 1, flat=True)
ceil = pointwise("ceil", 1, flat=True)
rint = pointwise("rint", 1, flat=True)
trunc = pointwise("trunc", 1, flat=True)


def _predicates(names: str, arity: int, kinds: str = "") -> list[Any]:
    return [
        pointwise(name, arity, flat=True, result="b", kinds=kinds, complex_ok=False)
        for name in names.split()
    ]


isfinite, isinf, isnan, signbit = _predicates("isfinite isinf isnan signbit", 1)
(logical_not,) = _predicates("logical_not", 1, "b")
equal, not_equal, less, less_equal, greater, greater_equal = _predicates(
    "equal not_equal less less_equal greater greater_equal", 2
)
logical_and, logical_or, logical_xor = _predicates("logical_and logical_or logical_xor", 2, "bb")
bitwise_and, bitwise_or, bitwise_xor, left_shift, right_shift = [
    pointwise(name, 2, flat=True, kinds="ii", result="i")
    for name in "bitwise_and bitwise_or bitwise_xor left_shift right_shift".split()
]
invert = pointwise("invert", 1, flat=True, kinds="i", result="i")

POINTWISE_ALIASES = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "atan2": "arctan2",
    "asinh": "arcsinh",
    "acosh": "arccosh",
    "atanh": "arctanh",
    "pow": "power",
    "true_divide": "divide",
    "mod": "remainder",
    "bitwise_not": "invert",
    "bitwise_invert": "invert",
    "bitwise_left_shift": "left_shift",
    "bitwise_right_shift": "right_shift",
}
