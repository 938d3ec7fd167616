"""`adopt`: code that says `import cupy as cp` is differentiated without a change to it."""

import functools
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from numpy import array as make_array
from numpy import linalg as la

import gpujac as gj
import gpujac.numpy as gnp
from tests import device

if device.MISSING:
    pytest.skip(device.MISSING, allow_module_level=True)

import cupy as cp
import cupy.linalg
from cupy import matmul, stack

X = np.array([0.3, 0.7])
SCALE = 2.0
joined = functools.partial(cp.concatenate, axis=0)
held = functools.partial(lambda x, join: join([x, x]), join=cp.concatenate)


@pytest.fixture(autouse=True)
def over_the_device():
    """Adopted code stands on the arrays of the tests."""
    with gj.settings.override(backend=device.NAME):
        yield


def helper(x):
    return stack([x, cp.sin(x) * SCALE])


def model(x):
    return matmul(helper(x), x).sum() + cp.linalg.norm(x) + cupy.linalg.norm(joined([x, x]))


def plain(x):
    rows = np.stack([x, np.sin(x) * SCALE])
    return (rows @ x).sum() + np.linalg.norm(x) + np.linalg.norm(np.concatenate([x, x]))


def check(f, numpys=plain, x=X):
    """The Jacobian of an adopted function on CuPy arrays is that of NumPy's function."""
    got = gj.jacrev(f)(device.array(x))
    np.testing.assert_allclose(device.host(got), gj.jacrev(numpys)(x), rtol=1e-12)
    return f


def test_a_function_with_its_helpers_is_differentiated():
    adopted = check(gj.adopt(model))
    assert (adopted.__name__, adopted.__wrapped__) == ("model", model)


def test_nothing_is_patched():
    before = dict(globals())
    check(gj.adopt(model))
    assert {n: v for n, v in globals().items() if before.get(n) is not v} == {}
    assert model.__globals__["cp"] is cp
    assert cp.concatenate.__module__.startswith("cupy.")
    with pytest.raises(TypeError, match=r"stack|incorrect type"):
        gj.grad(model)(device.array(X))


def test_the_globals_are_read_anew_at_each_call(monkeypatch):
    adopted = gj.adopt(model)
    check(adopted)
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    check(adopted)
    monkeypatch.setitem(globals(), "helper", lambda x: cp.stack([x, x]))
    check(adopted, lambda x: 2 * (x @ x) + np.linalg.norm(x) * (1 + np.sqrt(2)))


@gj.adopt
def decorated(x, n=3):
    return cp.concatenate([defined_later(x, n), x]) if n else x


def defined_later(x, n):
    return decorated(x, n - 1) * 2.0


def test_a_decorator_reaches_what_is_defined_later_and_recursion():
    check(decorated, lambda x: np.concatenate([8 * x, 4 * x, 2 * x, x]))
    assert decorated(X, n=0) is X


def enclosed():
    import cupy as inner

    scale = 1.0
    calls = []

    def first(x):
        calls.append(1)
        return inner.concatenate([second(x) * scale, x]) if len(calls) % 2 else x

    def second(x):
        return inner.expand_dims(x, 0)[0] + first(x)

    def change(to):
        nonlocal scale
        scale = to

    return first, change, calls


def test_variables_of_enclosing_functions_are_reached_and_shared():
    first, change, calls = enclosed()
    adopted = gj.adopt(first)
    check(adopted, lambda x: np.concatenate([2 * x, x]))
    assert len(calls) == 2  # the list is the function's own
    change(3.0)
    check(adopted, lambda x: np.concatenate([6 * x, x]))


def test_imports_inside_the_body_are_reached():
    def f(x):
        import math

        import cupy as local
        import cupy.linalg as norms
        from cupy import hstack
        from cupy.linalg import norm

        return local.stack([norm(x), norms.norm(2 * x), hstack([x, x]).sum() * math.pi])

    check(gj.adopt(f), lambda x: np.stack([np.linalg.norm(x), np.linalg.norm(2 * x), 2 * np.pi * x.sum()]))


def test_default_arguments_are_reached():
    def f(x, xp=cp, *, join=cp.concatenate):
        return join([xp.moveaxis(x, 0, -1), x])

    check(gj.adopt(f), lambda x: np.concatenate([x, x]))


def test_numpys_functions_that_never_ask_are_reached():
    def f(x):
        y = np.zeros(2)
        y[0] = x[0] * x[1]
        return y + make_array([x[1], la.norm(x)])

    want = gj.jacrev(lambda x: np.stack([x[0] * x[1] + x[1], np.linalg.norm(x)]))(X)
    np.testing.assert_allclose(gj.jacrev(gj.adopt(f))(X), want)
    got = gj.jacrev(gj.adopt(f, library="cupy"))(device.array(X))  # np.zeros(2) on the device
    np.testing.assert_allclose(device.host(got), want)
    with pytest.raises(gj.BackendError, match=r"numpy .*(cupy|emulated) "):
        gj.jacrev(gj.adopt(f))(device.array(X))


def test_cupy_code_runs_on_the_cpu_with_library_numpy():
    def f(x):
        return cp.concatenate([cp.zeros(1), cp.asarray(x)]) @ cp.ones(3) + cp.linalg.norm(x)

    got = gj.adopt(f, library="numpy")
    np.testing.assert_allclose(gj.grad(got)(X), gj.grad(lambda x: x.sum() + np.linalg.norm(x))(X))
    assert isinstance(got(X), np.float64)


def test_our_own_namespaces_change_places_too():
    def f(x):
        return gnp.concatenate([gnp.zeros(1), x]) * gnp.arange(3.0)

    got = gj.jacrev(gj.adopt(f, library="cupy"))(device.array(X))
    np.testing.assert_allclose(device.host(got), [[0, 0], [1, 0], [0, 2]])
    with pytest.raises(gj.BackendError):
        gj.jacrev(gj.adopt(f))(device.array(X))


def test_special_functions_are_ours():
    from cupyx.scipy import special
    from scipy.special import logsumexp

    def f(x):
        return special.expit(x) + logsumexp(x) + special.logsumexp(x)

    def numpys(x):
        return 1 / (1 + np.exp(-x)) + 2 * np.log(np.sum(np.exp(x)))

    check(gj.adopt(f), numpys)


class Layer:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x):
        return cp.concatenate([x * self.scale, x])

    def method(self, x):
        return cp.stack([x, x * self.scale])

    @staticmethod
    def static(x):
        return cp.vstack([x, x])


@pytest.mark.parametrize(
    ("f", "numpys"),
    [
        (lambda: gj.adopt(Layer(3.0)), lambda x: np.concatenate([3 * x, x])),
        (lambda: gj.adopt(Layer(3.0).method), lambda x: np.stack([x, 3 * x])),
        (lambda: gj.adopt(Layer.static), lambda x: np.vstack([x, x])),
        (lambda: gj.adopt(functools.partial(Layer.method, Layer(2.0))), lambda x: np.stack([x, 2 * x])),
        (lambda: gj.adopt(functools.partial(lambda a, x: cp.concatenate([x, a * x]), 4.0)),
         lambda x: np.concatenate([x, 4 * x])),
        (lambda: gj.adopt(cp.ravel), lambda x: x * 1.0),
        (lambda: gj.adopt(joined, library="numpy").func, None),
    ],
    ids="callable method static partial-method partial function partial-of-theirs".split(),
)  # fmt: skip
def test_methods_partials_and_callables_are_adopted(f, numpys):
    adopted = f()
    if numpys is None:
        np.testing.assert_allclose(gj.jacrev(lambda x: adopted([x, x]))(X), np.vstack([np.eye(2)] * 2))
    else:
        check(adopted, numpys)


def test_adopting_twice_is_adopting_once():
    once = gj.adopt(model)
    check(gj.adopt(once))
    assert gj.adopt(once).__wrapped__ is model


def test_a_decorated_function_is_reached_through_its_wrapper():
    def doubling(f):
        @functools.wraps(f)
        def wrapper(x):
            return 2.0 * f(x)

        return wrapper

    @doubling
    def f(x):
        return cp.concatenate([x, x])

    check(gj.adopt(f), lambda x: 2.0 * np.concatenate([x, x]))


def test_code_of_other_packages_is_left_alone():
    code = "import cupy as cp\ndef foreign(x):\n    return cp.stack([x, x])\n"
    other = types.ModuleType("another_package")
    exec(code, vars(other))
    foreign = other.foreign

    def f(x):
        return foreign(x)

    with pytest.raises(TypeError):
        gj.jacrev(gj.adopt(f))(device.array(X))
    check(gj.adopt(foreign), lambda x: np.stack([x, x]))


COUNT = 0


def counting(x):
    global COUNT
    COUNT += 1
    return cp.concatenate([x, x]) * COUNT


def test_what_a_copy_assigns_to_a_global_stays_in_the_copy():
    adopted = gj.adopt(counting)
    assert [float(adopted(device.array(X))[0].item()) / 0.3 for _ in range(2)] == pytest.approx([1.0, 2.0])
    assert COUNT == 0


def test_every_transform_takes_an_adopted_function():
    f = gj.adopt(lambda x: cp.concatenate([x * x, cp.sum(x, keepdims=True)]))
    x = device.array(X)
    np.testing.assert_allclose(device.host(gj.jacfwd(f)(x)), device.host(gj.jacrev(f)(x)))
    np.testing.assert_allclose(device.host(gj.vmap(f)(device.array(np.stack([X, 2 * X])))),
                               np.stack([[0.09, 0.49, 1.0], [0.36, 1.96, 2.0]]))  # fmt: skip
    assert gj.hessian(f)(x).shape == (3, 2, 2)


@pytest.mark.parametrize("f", [len, dict, 3, print], ids=str)
def test_what_is_not_written_in_python_is_refused(f):
    with pytest.raises(gj.ArgumentTypeError, match=r"needs a function written in Python.*write one that calls it"):
        gj.adopt(f)


def test_a_transform_is_refused_and_told_the_order():
    with pytest.raises(gj.ArgumentTypeError, match=r"transform of gpujac already.*grad\(adopt\(f\)\)"):
        gj.adopt(gj.grad(model))


def test_an_unknown_library_is_refused():
    with pytest.raises(gj.ArgumentError, match=r"library='torch' is not one of None, 'numpy', 'cupy'"):
        gj.adopt(model, library="torch")


def test_numpys_code_is_adopted_where_cupy_is_absent_or_broken(tmp_path):
    (tmp_path / "cupy.py").write_text("def __getattr__(name):\n    raise ImportError('no CUDA libraries')\n")
    code = (
        "import sys, numpy as np, gpujac as gj\n"
        "{first}\n"
        "f = lambda x: np.array([x[0], x[0] * x[1]])\n"
        "print(gj.jacrev(gj.adopt(f))(np.array([2.0, 3.0])).tolist())\n"
        "try:\n    gj.adopt(f, library='cupy')\nexcept gj.BackendError as error:\n    print('refused')\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(gj.__file__).parents[1])])
    for first in ("sys.modules['cupy'] = None", "import cupy"):
        command = [sys.executable, "-c", code.format(first=first)]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout.split("\n")[:2] == ["[[1.0, 0.0], [3.0, 2.0]]", "refused"], done.stderr


@pytest.mark.parametrize("library", [None, "cupy"])
def test_the_namespace_that_an_array_asks_for_has_rules(library):
    def f(x):
        xp = cp.get_array_module(x)
        return xp.stack([x, xp.sin(x)])

    x = device.array(np.array([0.5, 1.0]))
    wanted = gj.jacrev(lambda x: np.stack([x, np.sin(x)]))(device.host(x))
    np.testing.assert_allclose(device.host(gj.jacrev(gj.adopt(f, library=library))(x)), wanted)
    assert np.array_equal(device.host(gj.adopt(f, library=library)(x))[0], device.host(x))


def test_cupy_code_on_the_cpu_asks_for_its_namespace_too():
    def f(x):
        xp = cp.get_array_module(x)
        return xp.stack([x, xp.asarray(cp.asnumpy(xp.ones(2)))])

    J = gj.jacrev(gj.adopt(f, library="numpy"))(np.array([0.5, 1.0]))
    assert np.array_equal(J, np.stack([np.eye(2), np.zeros((2, 2))]))


def test_functions_held_by_a_partial_are_adopted():
    x = device.array(X)
    for f in (held, lambda x: held(x)):
        assert gj.jacrev(gj.adopt(f))(x).shape == (4, 2)
