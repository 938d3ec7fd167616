"""`gpujac.cupy`: every public name of CuPy, differentiable, passed through or refused."""

import copy
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import gpujac as gj
from tests import device
from tests.array import calls
from tests.array.test_namespace import CONSTANTS, CREATION, DTYPES, STANDARD

if device.MISSING:
    pytest.skip(device.MISSING, allow_module_level=True)

import cupy

import gpujac.cupy as gcp
from gpujac.array.namespace import OLD_NAMES
from gpujac.array.table import LINALG, TABLE

XP = device.XP  # the same names over the arrays of the tests
PUBLIC = [name for name in dir(cupy) if not name.startswith("_")]
# Functions that look at no array, so that nothing of theirs can be lost.
NO_ARRAYS = """
base_repr binary_repr broadcast_shapes clear_memo disp fuse get_array_wrap get_default_memory_pool
get_default_pinned_memory_pool get_printoptions is_available isdtype issubdtype iterable make_aligned_dtype
memoize promote_types set_printoptions
""".split()
OVERWRITTEN = frozenset(("linalg", "fft", "lib", "random", "r_", "c_", "fuse", "get_array_module"))


def run(code, **environment):
    """What a fresh interpreter prints, and its errors."""
    environment = {**os.environ, "PYTHONPATH": str(Path(gj.__file__).parents[1]), **environment}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.strip(), done.stderr


def kind_of(name):
    """How `gpujac.cupy` serves a name: "differentiable", "passed through" or "refused"."""
    ours, theirs = getattr(gcp, name), getattr(cupy, name)
    if name in TABLE or name in OLD_NAMES or name in OVERWRITTEN or name in ("zeros", "ones", "empty"):
        return "differentiable"
    if isinstance(theirs, (type, types.ModuleType, str, bool, float, type(None))) or not callable(theirs):
        assert ours is theirs or isinstance(theirs, float)
        return "passed through"
    if ours is theirs:
        return "passed through"
    return "refused"


def test_every_public_name_of_cupy_is_ours():
    assert [name for name in PUBLIC if name not in vars(gcp)] == []
    assert set(PUBLIC) <= set(gcp.__all__)
    for part in ("linalg", "fft", "random"):
        theirs, ours = getattr(cupy, part), getattr(gcp, part)
        known = {n for n in dir(theirs) if not n.startswith("_")} - {"Generator"}  # CuPy loads it at the first need
        assert known <= set(vars(ours))


def test_the_namespace_of_a_traced_array_has_every_name_of_the_standard():
    seen = []
    x = device.array(np.ones(2))
    gj.jvp(lambda x: (seen.append(x.__array_namespace__()), x)[1], (x,), (x,))
    names = (*STANDARD, *CREATION, *CONSTANTS, *DTYPES, "isdtype", "finfo", "iinfo", "linalg", "fft")
    assert [name for name in names if name not in vars(seen[0])] == []
    assert seen[0].sin is XP.sin


def test_every_name_is_of_one_of_three_kinds():
    kinds = {name: kind_of(name) for name in PUBLIC}
    passed = {n for n, k in kinds.items() if k == "passed through" and callable(getattr(cupy, n))}
    functions = {n for n in passed if not isinstance(getattr(cupy, n), type)}
    assert functions <= {*NO_ARRAYS, "index_exp", "s_", "mgrid", "ogrid", "newaxis"}
    counts = {kind: list(kinds.values()).count(kind) for kind in ("differentiable", "passed through", "refused")}
    assert counts["differentiable"] >= 230


REFUSED = [name for name in PUBLIC if kind_of(name) == "refused"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_without_a_rule_refuses_a_traced_array_by_name(name):
    x = device.array(np.ones((2, 2)))
    with pytest.raises(gj.DispatchError, match=rf"cupy\.(_kernel\.)?{name} .*gpujac\.value"):
        gj.jvp(lambda x: getattr(gcp, name)(x, x), (x,), (x,))


@pytest.mark.parametrize("part", ["random"])
def test_functions_of_submodules_refuse_traced_arrays(part):
    x = device.array(np.ones(3))
    module = getattr(gcp, part)
    functions = [n for n, f in vars(module).items() if isinstance(f, types.FunctionType) and not n.startswith("_")]
    assert len(functions) > 10
    for name in functions:
        with pytest.raises(gj.DispatchError, match=rf"cupy\.{part}\.{name} "):
            gj.jvp(lambda x, name=name: getattr(module, name)(x), (x,), (x,))


def test_linalg_has_cupys_names_and_those_of_the_table():
    assert LINALG.keys() <= vars(gcp.linalg).keys()
    x = device.array(np.eye(2))
    for name in ("eig", "matrix_rank", "tensorinv"):
        with pytest.raises(gj.DispatchError, match=rf"cupy\.linalg\.{name} "):
            gj.jvp(lambda x, name=name: getattr(gcp.linalg, name)(x), (x,), (x,))


def test_names_that_cupy_lacks_are_there():
    assert {"block", "unstack", "vecdot"} <= vars(gcp).keys() - set(PUBLIC)
    x = np.array([[0.3, 0.7], [1.2, 0.4]])
    for f in (lambda x, np: np.block([[x, x], [x, 2.0 * x]]), lambda x, np: np.unstack(x)[1] * 1.0,
              lambda x, np: np.vecdot(x, x)):  # fmt: skip
        want = f(x, np)
        np.testing.assert_allclose(device.host(f(device.array(x), XP)), want)
        y, _ = gj.jvp(lambda x, f=f: f(x, XP), (device.array(x),), (device.array(x),))
        np.testing.assert_allclose(device.host(y), want)


@pytest.mark.parametrize("name", OLD_NAMES)
def test_names_that_numpy_has_dropped_follow_their_successors(name):
    x = np.array([[0.3, 0.7], [1.2, 0.4]])
    new = OLD_NAMES[name]
    y, _ = gj.jvp(lambda x: getattr(gcp, name)(x) * 1.0, (device.array(x),), (device.array(x),))
    np.testing.assert_allclose(device.host(y), getattr(np, new)(x) * 1.0)


def test_conversions_keep_traced_arrays():
    x = device.array(np.array([[0.3, 0.7], [1.2, 0.4]]))
    for f in (lambda x: XP.asarray(x), lambda x: XP.asanyarray(x), lambda x: XP.ascontiguousarray(x.T).T,
              lambda x: XP.array(x), lambda x: XP.array([x[0], x[1]]),
              lambda x: XP.array([[x[0, 0], 0.7], [1.2, x[1, 1]]])):  # fmt: skip
        y, dy = gj.jvp(f, (x,), (x,))
        np.testing.assert_allclose(device.host(y), device.host(x))
        assert device.host(dy)[1, 1] == 0.4
    y, _ = gj.jvp(lambda x: XP.ascontiguousarray(x[0, 0]), (x,), (x,))
    assert y.shape == (1,)


def test_plain_arrays_get_the_librarys_own_answer():
    names = [n for n in calls.OPERANDS if n != "s"]
    operands = {n: device.array(calls.OPERANDS[n]) for n in names}
    theirs = device.BACKEND.xp
    for call in ("cp.concatenate([x, y])", "cp.matmul(A, x)", "cp.linalg.solve(A, A)", "cp.sum(x, axis=1)",
                 "cp.sin(x)", "cp.add(x, y)", "cp.where(x > 0, x, y)", "cp.add.reduce(x)", "cp.sort(x)"):  # fmt: skip
        got, want = (eval(call, {"cp": xp, **operands}) for xp in (XP, theirs))
        assert type(got) is device.TYPE
        np.testing.assert_array_equal(device.host(got), device.host(want))


def test_ufuncs_keep_their_attributes_and_methods():
    assert (gcp.add.nin, gcp.add.nout, gcp.sin.nin) == (2, 1, 1)
    assert repr(gcp.add) == "<gpujac.cupy.add>"
    assert gcp.add.name == cupy.add.name
    assert copy.copy(gcp.sin).nin == 1

    def f(x):
        y = x * 0.0
        gcp.add.at(y, [0, 0], x[1])
        return gcp.multiply.outer(x[0], x[1]) + gcp.add.reduce(x, axis=0) + gcp.multiply.accumulate(x, axis=1) + y

    x = np.array([[0.3, 0.7], [1.2, 0.4]])
    y, _ = gj.jvp(f, (device.array(x),), (device.array(x),))
    added = np.array([2 * x[1], [0.0, 0.0]])
    np.testing.assert_allclose(device.host(y), np.outer(x[0], x[1]) + x.sum(0) + np.cumprod(x, 1) + added)
    with pytest.raises(gj.DispatchError, match=r"add\.reduceat"):
        gj.jvp(lambda x: gcp.add.reduceat(x, [0]), (device.array(x),), (device.array(x),))


def test_get_array_module_answers_with_this_module_for_traced_arrays():
    seen = []
    x = device.array(np.ones(2))
    gj.jvp(lambda x: (seen.append(gcp.get_array_module(x)), x)[1], (x,), (x,))
    assert seen[0] is gcp or seen[0].sin is not np.sin
    gj.jvp(lambda x: (seen.append(gcp.get_array_module(1, x)), x)[1], (np.ones(2),), (np.ones(2),))
    assert seen[1].sin is np.sin
    assert gcp.get_array_module(np.ones(2)) is np


def test_submodules_can_be_imported():
    import gpujac.cupy.fft
    import gpujac.cupy.linalg
    from gpujac.cupy.linalg import norm
    from gpujac.numpy.linalg import solve

    assert norm is gcp.linalg.norm
    assert gpujac.cupy.linalg is gcp.linalg
    x = np.array([[2.0, 1.0], [0.5, 3.0]])
    np.testing.assert_allclose(gj.jvp(lambda x: solve(x, x), (x,), (x,))[0], np.eye(2), atol=1e-15)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'gpujac\.cupy' has no attribute 'nothing': CuPy has no such name"):
        gcp.nothing  # noqa: B018 (the access is the test)


def test_without_cupy_the_import_names_the_wheel():
    code = (
        "import sys; sys.modules['cupy'] = None\n"
        "import gpujac\n"
        "try:\n    import gpujac.cupy\nexcept ImportError as error:\n    print(error)\n"
    )
    printed, errors = run(code)
    assert errors == ""
    assert "gpujac.cupy needs CuPy" in printed
    assert "pip install 'cupy-cuda13x>=14'" in printed
    assert "gpujac.numpy" in printed


@pytest.mark.skipif(
    shutil.which("g++") is None and not os.environ.get("CI"),
    reason="kernels of emulated arrays are compiled by g++, which is not installed here",
)
def test_the_setting_puts_our_namespace_on_emulated_arrays():
    code = (
        "import gpujac as gj, gpujac.cupy as cp\n"
        "x = cp.array([2.0, 3.0])\n"
        "print(type(x).__name__, gj.jacrev(lambda x: cp.concatenate([x * x, cp.sum(x, keepdims=True)]))(x).tolist())\n"
    )
    printed, errors = run(code, GPUJAC_BACKEND="emulated")
    assert errors == ""
    assert printed == "EmulatedArray [[4.0, 0.0], [0.0, 6.0], [1.0, 1.0]]"
