"""gpujac.testing: right rules pass, every deliberately wrong one fails, and the message says where and why."""

import array_api_strict as xps
import numpy as np
import pytest

import gpujac as gj
from gpujac.control import remove_custom_op
from gpujac.testing import check_batching, check_derivatives, check_op
from gpujac.testing.report import compare, factor
from tests import device

X = np.array([0.3, -1.2, 2.0])
W = np.linspace(-1.0, 1.0, 6).reshape(2, 3)

# ---------------------------------------------------------------- right ones pass

RIGHT = {
    "elementwise": (lambda x: np.sin(x) * x.sum(), (X,)),
    "matrices": (lambda w, x: np.tanh(w @ x), (W, X)),
    "trees": (lambda p, q: {"y": p["a"] * q[0], "s": [p["a"].sum() ** 2]}, ({"a": X}, (X[::-1],))),
    "integers beside": (lambda x, i: (x[i] ** 2, i), (X, np.array([0, 2, 2]))),
    "texts beside": (lambda x, mode: x**2 if mode == "square" else x, (X, "square")),
    "numbers": (lambda a, b: a * np.exp(b), (1.5, -0.3)),
    "no axes": (lambda a: np.sin(a) ** 2, (np.array(0.7),)),
    "empty beside": (lambda x, e: x * 2 + e.sum(), (X, np.zeros(0))),
    "writes into its argument": (lambda x: (x.__setitem__(0, x[1] * x[2]), x * x)[1], (X,)),
    "an output without derivative": (lambda x: (x * x, x > 0, np.argmax(x)), (X,)),
    "an output that does not depend": (lambda x: (x * x, np.ones(2)), (X,)),
    "large and small": (lambda x, y: np.log(x) * y, (np.array([1e6, 3e7]), np.array([1e-9, 2e-8]))),
    "not analytic": (lambda x: np.abs(x) * np.hypot(x, 2.0), (X,)),
    "real of complex": (lambda z: np.abs(z) ** 2 + z.real, (X + 0.5j,)),
    "complex": (lambda z: z * np.conj(z) * np.exp(z), (X + 0.5j,)),
    "real to complex": (lambda x: np.exp(1j * x), (X,)),
    "stops": (lambda x: x * np.sort(x)[::-1], (X,)),
}


@pytest.mark.parametrize("name", list(RIGHT))
@pytest.mark.parametrize("order", [1, 2])
def test_right_derivatives_pass(name, order):
    f, args = RIGHT[name]
    check_derivatives(f, args, order=order, batching=name != "writes into its argument" or order == 1)


@pytest.mark.parametrize("name", list(RIGHT))
def test_right_batches_pass(name):
    f, args = RIGHT[name]
    check_batching(f, args)


def test_third_order():
    check_derivatives(lambda x: (np.sin(x) * x).sum(), (X,), order=3, samples=1)
    check_derivatives(lambda x: np.exp(x * x[0]), (X,), order=3, modes=("fwd",), samples=1)
    check_derivatives(lambda x: np.exp(x * x[0]), (X,), order=3, modes=("rev",), samples=1)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_single_precision(dtype):
    x = (X + (0.5j if dtype is np.complex64 else 0)).astype(dtype)
    check_derivatives(lambda x: np.tanh(x) * x.sum(), (x,), order=2)


def test_a_branch_on_values():
    f = lambda x: x * x if x.sum() > 0 else -x
    check_derivatives(f, (X,), batching=False)
    with pytest.raises(gj.ConcretizationError) as caught:
        check_derivatives(f, (X,))
    assert "batching=False" in caught.value.__notes__[-1]


def test_array_api_strict():
    x = xps.asarray(X.tolist())
    f = lambda x: x.__array_namespace__().sin(x) * x[0]
    check_derivatives(f, (x,), order=2)
    check_batching(f, (x,))
    wrong = lambda x: f(x) + 0 * x if not gj.is_traced(x) else 2 * f(x)
    with pytest.raises(AssertionError, match="value under"):
        check_derivatives(wrong, (x,))


@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
def test_arrays_of_a_device():
    x, w = device.array(X), device.array(W)
    check_derivatives(lambda w, x: device.XP.tanh(w @ x), (w, x), order=2)
    check_batching(lambda w, x: device.XP.tanh(w @ x), (w, x))


# ---------------------------------------------------------------- wrong ones fail


def ruled(y, dy):
    """x -> y(x) whose tangent is said to be dy(x, t)."""
    f = gj.custom_jvp(y)
    f.defjvp(lambda primals, tangents: (y(*primals), dy(*primals, *tangents)))
    return f


def pulled(y, bwd):
    """x -> y(x) whose cotangents are said to be bwd(xs, ct)."""
    f = gj.custom_vjp(y)
    f.defvjp(lambda *xs: (y(*xs), xs), bwd)
    return f


CUBE = lambda x: x**3
WRONG = {
    "sign": (ruled(CUBE, lambda x, t: -3 * x**2 * t), "the sign is wrong"),
    "factor": (ruled(CUBE, lambda x, t: 6 * x**2 * t), "2 times what it should be"),
    "half": (ruled(CUBE, lambda x, t: 1.5 * x**2 * t), "0.5 times what it should be"),
    "zero": (ruled(CUBE, lambda x, t: 0 * t), "the derivative is zero"),
    "missing term": (ruled(lambda x: x * x.sum(), lambda x, t: t * x.sum()), ""),
    "small wrong term": (ruled(CUBE, lambda x, t: 3 * x**2 * t + 1e-5 * t), ""),
    "wrong axis": (ruled(lambda x: np.cumsum(x), lambda x, t: np.cumsum(t[::-1])[::-1]), ""),
    "sign of a pullback": (pulled(CUBE, lambda xs, ct: (-3 * xs[0] ** 2 * ct,)), "the sign is wrong"),
    "factor of a pullback": (pulled(CUBE, lambda xs, ct: (6 * xs[0] ** 2 * ct,)), "2 times"),
    "zero pullback": (pulled(CUBE, lambda xs, ct: (0 * ct,)), "zero"),
    "pullback without its transpose": (pulled(lambda x: np.cumsum(x), lambda xs, ct: (np.cumsum(ct),)), ""),
}


@pytest.mark.parametrize("name", list(WRONG))
@pytest.mark.parametrize("modes", [("fwd", "rev"), ("fwd",), ("rev",)])
def test_wrong_rules_fail(name, modes):
    f, reason = WRONG[name]
    with pytest.raises(AssertionError, match=r"(?s)order 1, direction 1.*found .*expected .*relative error") as caught:
        check_derivatives(f, (X,), modes=modes)
    assert reason in str(caught.value)


@pytest.mark.parametrize("modes", [("fwd", "rev"), ("rev",)])
def test_a_pullback_that_is_not_linear_fails(modes):
    f = pulled(CUBE, lambda xs, ct: (3 * xs[0] ** 2 * np.abs(ct),))
    with pytest.raises((AssertionError, gj.GpujacError)):  # forward needs its transpose, which says so itself
        check_derivatives(f, (X,), modes=modes)
    even = pulled(CUBE, lambda xs, ct: (3 * xs[0] ** 2 * np.where(ct * 0 == 0, ct, 0.0),))
    check_derivatives(even, (X,), modes=("rev",))


def test_a_wrong_second_derivative_fails():
    inner = ruled(lambda x: np.cos(x), lambda x, t: t * np.sin(x))  # should be -sin
    f = ruled(lambda x: np.sin(x), lambda x, t: t * inner(x))
    check_derivatives(f, (X,))
    with pytest.raises(AssertionError, match=r"order 2.*jvp of jvp of f"):
        check_derivatives(f, (X,), order=2, modes=("fwd",))
    with pytest.raises(AssertionError, match=r"order 2.*vjp of vjp of f.*args\[0\]"):
        check_derivatives(f, (X,), order=2, modes=("rev",))


def test_the_worst_leaf_is_named():
    f = ruled(lambda p: {"u": p["a"] * 2, "v": p["b"] ** 2},
              lambda p, t: {"u": t["a"] * 2, "v": p["b"] * t["b"]})  # fmt: skip
    with pytest.raises(AssertionError, match=r"output\['v'\] is wrong at index \(\d,\): .* 0.5 times"):
        check_derivatives(f, ({"a": X, "b": X + 1},))
    with pytest.raises(AssertionError, match=r"the inner product for args\[0\]\['b'\]"):
        check_derivatives(f, ({"a": X, "b": X + 1},), modes=("rev",))


def test_a_wrong_batching_rule_fails():
    def last_axis(info, in_dims, x):
        return np.moveaxis(x, in_dims[0], -1) ** 3, 0  # says 0, but it is the last

    def one_lane(info, in_dims, x):
        lane = np.take(x, 0, axis=in_dims[0])
        return np.stack([lane**3] * info.batch_size), 0

    square = np.stack([X, X + 1, X - 1])
    for rule, reason in ((last_axis, "mapped axis at 1"), (one_lane, "all lanes are equal")):
        f = gj.custom_jvp(CUBE)
        f.defjvp(lambda primals, tangents: (primals[0] ** 3, 3 * primals[0] ** 2 * tangents[0]))
        f.defvmap(rule)
        for check in (check_batching, check_derivatives):
            with pytest.raises(AssertionError, match=rf"vmap of f over args\[0\].*{reason}"):
                check(f, (X,))
    assert square.shape == (3, 3)


def test_a_function_that_is_not_deterministic_is_told():
    calls = []

    def f(x):
        calls.append(1)
        return x * (1 + 0.1 * len(calls))

    with pytest.raises(AssertionError, match="not deterministic"):
        check_derivatives(f, (X,))


def test_a_kink_is_told():
    bent = lambda x: np.where(x > 1, 3 * x - 2, x)
    with pytest.raises(AssertionError, match="kink"):
        check_derivatives(bent, (np.array([1.0, 2.0]),))
    check_derivatives(bent, (np.array([1.0 + 1e-5, 2.0]),))  # smaller steps stay on one side


def test_functions_that_vary_fast_at_their_point_pass():
    check_derivatives(np.sin, (np.array([1e3, -1.3e3]),), order=2)
    check_derivatives(lambda x: 1 / x, (np.array([1.0, 1e-5]),), order=2)
    check_derivatives(lambda x: np.exp(x), (np.array([600.0, -1.0]),))


@pytest.mark.parametrize("modes", [("fwd",), ("rev",)])
def test_a_wrong_zero_of_a_leaf_with_little_effect_is_found(modes):
    y = lambda a, b: a * 2 + 1e-12 * b
    right = pulled(y, lambda xs, ct: (2 * ct, 1e-12 * ct))
    check_derivatives(right, (X, X), modes=modes)
    wrong = pulled(y, lambda xs, ct: (2 * ct, None))
    with pytest.raises(AssertionError, match=r"args\[1\] alone"):
        check_derivatives(wrong, (X, X), modes=modes)


@pytest.mark.parametrize(
    "options",
    [
        {"allowed": -1.0}, {"allowed": float("nan")}, {"allowed": float("inf")}, {"allowed": True}, {"samples": 0},
        {"samples": 1.5}, {"order": 2.5}, {"order": True}, {"modes": "fwd"}, {"modes": ()}, {"modes": 5},
        {"modes": (["fwd"],)},
    ],
    ids=str,
)  # fmt: skip
def test_an_option_with_which_nothing_could_fail_is_refused(options):
    (name,) = options
    with pytest.raises(gj.ArgumentError, match=f"check_derivatives: {name}="):
        check_derivatives(ruled(CUBE, lambda x, t: 2 * x**2 * t), (X,), **options)


@pytest.mark.parametrize("options", [{"size": 1}, {"size": 0}, {"size": 2.0}, {"allowed": -1.0}], ids=str)
def test_a_batch_with_which_nothing_could_fail_is_refused(options):
    (name,) = options
    with pytest.raises(gj.ArgumentError, match=f"check_batching: {name}="):
        check_batching(np.sin, (X,), **options)


@pytest.mark.parametrize("beside", [1.0, np.inf, np.nan])
@pytest.mark.parametrize("factor", [7.0, 1.0])
def test_a_wrong_lane_beside_what_is_not_finite_is_found(beside, factor):
    f = gj.custom_jvp(lambda x: np.concatenate([x, x[:1] * beside]))
    f.defjvp(lambda xs, ts: (f(*xs), np.concatenate([ts[0], ts[0][:1] * beside])))

    def rule(size, axes, x):
        x = np.moveaxis(x, axes[0], 0)
        return np.concatenate([x * factor, x[..., :1] * beside], -1), 0

    f.defvmap(rule)
    if factor == 1.0:
        check_batching(f, (X,))
        return
    with pytest.raises(AssertionError, match="output is wrong"):
        check_batching(f, (X,))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, complex(np.nan, 1)])
def test_what_is_not_finite_agrees_with_its_like_alone(odd):
    def differ(found, expected):
        try:
            compare("check", ["y"], [np.array(found)], [np.array(expected)], 1e-9, [0.0], factor)
        except AssertionError:
            return True
        return False

    assert not differ([1.0, odd], [1.0, odd])
    for found, expected in (([1.0, 2.0], [1.0, odd]), ([1.0, odd], [1.0, 2.0]), ([5.0, odd], [1.0, odd])):
        assert differ(found, expected)
    assert differ([1.0, np.inf], [1.0, -np.inf])
    assert differ([1.0, np.nan], [1.0, np.inf])


@pytest.mark.parametrize("beside", [np.array(["a", "b", "c"]), np.array([None, 1, 2], object)])
def test_arrays_of_texts_and_objects_stay_beside(beside):
    check_derivatives(lambda x, s: x * x if s[0] in ("a", None) else x, (X, beside))
    check_batching(lambda x, s: (x * x, s), (X, beside))


def test_long_doubles_are_checked_like_doubles():
    check_derivatives(np.sin, (X.astype(np.longdouble),))
    with pytest.raises(AssertionError):
        check_derivatives(ruled(CUBE, lambda x, t: 2 * x**2 * t), (X.astype(np.longdouble),))


def test_operations_with_texts_numbers_and_absent_arrays_are_checked():
    @gj.custom_op("checked::scaled")
    def scaled(x: np.ndarray, mode: str, k: float, w: np.ndarray | None = None, n: int = 2) -> np.ndarray: ...

    try:
        gj.impl(scaled, device_types="cpu")(lambda x, mode, k, w, n: x * k * n if mode == "up" else -x)
        assert check_op(scaled, (X, "up", 2.0, None)) == ("operands", "refusal", "batching")
        gj.impl_jvp(scaled)(lambda inputs, output, tangents: tangents.x * inputs.k * inputs.n)
        assert check_op(scaled, (X, "up", 2.0)) == ("operands", "derivatives", "batching")
        with pytest.raises(AssertionError, match="is wrong"):
            check_op(scaled, (X, "down", 2.0, None))
    finally:
        remove_custom_op("checked::scaled")
    with pytest.raises(gj.RegistrationError, match="was removed"):
        check_op(scaled, (X, "up", 2.0))
    with pytest.raises(gj.RegistrationError, match="not by <ufunc 'sin'>"):
        check_op(np.sin, (X,))


def test_rounding_is_told():
    slightly = ruled(CUBE, lambda x, t: 3.01 * x**2 * t)
    with pytest.raises(AssertionError, match="rounding in single"):
        check_derivatives(slightly, (X.astype(np.float32),), allowed=1e-3)


def test_a_value_that_changes_when_traced_fails():
    f = lambda x: x * 2 if gj.is_traced(x) else x * 2 + 1e-6
    with pytest.raises(AssertionError, match="the value under jvp against a plain call"):
        check_derivatives(f, (X,))


def test_a_shape_that_changes_fails():
    f = gj.custom_jvp(lambda x: x * 1.0)
    f.defjvp(lambda primals, tangents: (primals[0] * 1.0, tangents[0][:1]))
    with pytest.raises((AssertionError, gj.GpujacError), match="shape"):
        check_derivatives(f, (X,))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: check_derivatives(np.sin, X), gj.ArgumentTypeError, "args must be a tuple"),
        (lambda: check_derivatives(3, (X,)), gj.ArgumentTypeError, "must be a function"),
        (lambda: check_derivatives(np.sin, (np.arange(3),)), gj.ArgumentError, "no floating array"),
        (lambda: check_derivatives(lambda x: 3, (X,)), gj.ArgumentError, "returned no floating array"),
        (lambda: check_derivatives(np.sin, (X,), order=0), gj.ArgumentError, "order=0"),
        (lambda: check_derivatives(np.sin, (X,), modes=("both",)), gj.ArgumentError, "choose from"),
        (lambda: check_derivatives(np.log, (-np.ones(1),)), gj.ArgumentError, "not finite at args"),
        (lambda: check_batching(np.sin, ()), gj.ArgumentError, "no floating array"),
    ],
)
def test_what_cannot_be_checked(call, error, words):
    with np.errstate(invalid="ignore"), pytest.raises(error, match=words):
        call()


# ---------------------------------------------------------------- custom operations


@pytest.fixture
def scaled():
    """A function that defines testing::scaled, y = x * sin(w), with parts to choose; forgotten afterwards."""

    def define(**parts):
        def scaled(x: np.ndarray, w: np.ndarray) -> np.ndarray: ...

        op = gj.custom_op("testing::scaled", scaled)
        gj.impl(op, device_types="cpu", func=parts.get("cpu", lambda x, w: x * np.sin(w)))
        if "cuda" in parts:
            gj.impl(op, device_types="cuda", func=parts["cuda"])
        gj.impl_abstract(op, parts.get("abstract", lambda x, w: x))
        if parts.get("rules", True):
            gj.impl_save_for_backward(op, lambda inputs, output: (inputs.x, inputs.w))
            back = lambda ctx, saved, ct: {"x": ct * np.sin(saved[1]), "w": ct * saved[0] * np.cos(saved[1])}
            gj.impl_backward(op, parts.get("backward", back))
        return op

    yield define
    remove_custom_op("testing::scaled")


def test_a_right_operation_passes(scaled):
    op = scaled()
    wanted = ("operands", "abstract", "derivatives", "batching")
    assert check_op(op, (X, X + 1), order=2) == check_op("testing::scaled", (X, X + 1)) == wanted


def test_an_operation_without_rules_refuses_derivatives(scaled):
    assert check_op(scaled(rules=False), (X, X + 1)) == ("operands", "abstract", "refusal", "batching")


def writing(x, w):
    x *= np.sin(w)
    return x.copy()


WRONG_PARTS = {
    "a factor": ({"backward": lambda ctx, s, ct: {"x": 2 * ct * np.sin(s[1]), "w": ct * s[0] * np.cos(s[1])}},
                 r"the inner product for args\[0\]|the tangent|output"),
    "a missing one": ({"backward": lambda ctx, s, ct: {"x": ct * np.sin(s[1]), "w": None}}, "is wrong"),
    "writes": ({"cpu": writing}, "wrote into its array operand 0"),
    "shape foretold": ({"abstract": lambda x, w: x._replace(shape=(7,))}, r"foretells shape \(7,\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG_PARTS))
def test_wrong_operations_fail(scaled, name):
    parts, words = WRONG_PARTS[name]
    with pytest.raises(AssertionError, match=words):
        check_op(scaled(**parts), (X.copy(), X + 1))


@pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")
def test_devices_that_disagree_fail(scaled):
    right = lambda x, w: x * device.XP.sin(w)
    with gj.settings.override(backend=device.NAME):
        op = scaled(cuda=right)
        assert "devices" in check_op(op, (X, X + 1))
        remove_custom_op("testing::scaled")
        op = scaled(cuda=lambda x, w: x * device.XP.cos(w))
        with pytest.raises(AssertionError, match="on cuda against cpu"):
            check_op(op, (X, X + 1))
