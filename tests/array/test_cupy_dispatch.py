"""What CuPy's functions do with a traced array: the dispatch table, and no value silently wrong."""

import contextlib
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.special

import gpujac as gj
from gpujac import trees
from gpujac.core.trace import Tracer
from tests import device
from tests.array import cupy_calls
from tests.array.duck import AskedError, Duck

if device.MISSING:
    pytest.skip(device.MISSING, allow_module_level=True)

import cupy as cp
import cupyx
import cupyx.scipy.ndimage as ndimage
import cupyx.scipy.special as special

from gpujac.array import cupy_protocols
from gpujac.array.namespace import module_of, names_over

CP = module_of("cupy", names_over(device.BACKEND.xp))  # gpujac.cupy over the arrays of the tests
MODULES = {"cupyx": cupyx, "special": special, "ndimage": ndimage, "np": np}
for short, name in (("signal", "cupyx.scipy.signal"), ("sl", "cupyx.scipy.linalg")):
    with contextlib.suppress(ImportError):  # they load libraries of CUDA's at once
        MODULES[short] = importlib.import_module(name)
ROWS = cupy_calls.rows()
every_row = pytest.mark.parametrize("row", ROWS, ids=[row[-1] for row in ROWS])
# Needs a library of CUDA's, or a device, that a machine without a GPU need not have.
ABSENT = re.compile(r"InsufficientDriver|NoDevice|Failure finding|name '(signal|sl)' is not defined")
DECIDES = "a card decides: CuPy asks the device, or loads a library of CUDA's, before it looks at the array"
# Calls of plain CuPy that are said to work, from a reading of its sources: a machine without a card cannot tell.
WORK_ON_A_CARD = {
    "cp.zeros_like(x)", "cp.ones_like(x)", "cp.empty_like(x)*0", "cp.full_like(x,2.0)", "cp.zeros(x.shape)",
    "cp.take_along_axis(x,j,0)", "[b:=x*1,cp.put_along_axis(b,j,1.0,0)][0]",
}  # fmt: skip
WITHOUT_NOTE = ("cp.from_dlpack(x)",)  # its error names neither the object nor its type


class Oracle:
    """NumPy under CuPy's name, with what NumPy lacks."""

    rsqrt = staticmethod(lambda x: 1 / np.sqrt(x))
    fuse = staticmethod(lambda f: f)
    unstack = staticmethod(lambda x: tuple(x))

    def __getattr__(self, name):
        return getattr(np, name)


ORACLE = Oracle()


def evaluated(call, namespace, operands):
    scope = {**MODULES, "cp": namespace, **operands}
    return eval(cupy_calls.spelled(call), scope)


def numpys(call):
    """What the call gives for plain NumPy arrays."""
    scope = {**MODULES, "cp": ORACLE, "cupyx": ORACLE, "special": scipy.special}
    operands = {n: x.copy() for n, x in cupy_calls.OPERANDS.items()}
    if "scatter_add" in call:
        call = call.replace("cupyx.scatter_add", "cp.add.at")
    with np.errstate(all="ignore"):
        oracle = cupy_calls.spelled(call).replace("cp.fix(", "cp.trunc(")  # NumPy 2.5 warns of the first name
        return eval(oracle, {**scope, **operands})


def traced(call, namespace):
    """(result, derivative or None): the call with every operand on the device and traced."""
    names = cupy_calls.operands_of(call)
    floating = [n for n in names if n not in cupy_calls.INTEGERS]
    found = []

    def f(*args):
        operands = {n: device.array(cupy_calls.OPERANDS[n]) for n in names}
        operands.update(zip(floating or names, args, strict=True))
        found.append(evaluated(call, namespace, operands))
        return found[0] if isinstance(found[0], Tracer) else args[0]

    if not floating:  # whole numbers carry no derivative: one lane of vmap traces them
        y = gj.vmap(f)(*[device.array(cupy_calls.OPERANDS[n][None]) for n in names])
        return y[0] if isinstance(found[0], Tracer) else found[0], None
    args = tuple(device.array(cupy_calls.OPERANDS[n]) for n in floating)
    tangents = tuple(device.array(np.cos(cupy_calls.OPERANDS[n])) for n in floating)
    y, dy = gj.jvp(f, args, tangents)
    return (y, dy) if isinstance(found[0], Tracer) else (found[0], None)


def slope(call, h=1e-6):
    """Central differences of NumPy's function along the tangent that `traced` uses."""
    plain = {n: x for n, x in cupy_calls.OPERANDS.items()}
    ends = []
    for step in (h, -h):
        moved = {n: x if n in cupy_calls.INTEGERS else x + step * np.cos(x) for n, x in plain.items()}
        for name, x in moved.items():
            cupy_calls.OPERANDS[name] = x
        try:
            ends.append(np.asarray(numpys(call), dtype=float))
        finally:
            cupy_calls.OPERANDS.update(plain)
    return (ends[0] - ends[1]) / (2 * h)


def check_values(got, want):
    got = trees.flatten(got)[0]
    want = trees.flatten(want)[0]
    assert len(got) == len(want)
    for y, z in zip(got, want, strict=True):
        if isinstance(z, (np.ndarray, np.generic, float)):
            np.testing.assert_allclose(device.host(y), z, rtol=1e-12, atol=1e-14)
        else:
            assert y == z


def check_outcome(call, outcome, namespace):
    if outcome in ("works", "constant", "unchanged"):
        try:
            y, dy = traced(call, namespace)
        except Exception as error:
            if call in WORK_ON_A_CARD and namespace is cp and ABSENT.search(str(error)):
                pytest.skip(DECIDES)
            raise
        if outcome == "unchanged":
            call = cupy_calls.operands_of(call)[0]
        assert outcome != "constant" or dy is None
        check_values(y, numpys(call))
        if dy is not None:
            np.testing.assert_allclose(device.host(dy), slope(call), rtol=1e-6, atol=1e-8)
        return
    error = raised(call, namespace)
    if ABSENT.search(str(error)):
        pytest.skip(DECIDES)
    if call in WITHOUT_NOTE:
        return
    own = isinstance(error, gj.GpujacError)
    if outcome == "refused":
        assert own
    else:
        assert isinstance(error, gj.ConcretizationError) or not own
        lacks = isinstance(error, AttributeError) and "module" in str(error)
        assert lacks or any("gpujac: " in note for note in getattr(error, "__notes__", ()))


def raised(call, namespace):
    """The error that a call ends with."""
    try:
        result = traced(call, namespace)
    except Exception as error:
        return error
    return pytest.fail(f"no error, but {result}")


@every_row
def test_what_plain_cupy_does_with_a_traced_array(row):
    *_, outcome, _, call = row
    check_outcome(call, outcome, cp)


@every_row
def test_what_our_namespace_does_with_a_traced_array(row):
    *_, outcome, call = row
    check_outcome(call, outcome, CP)


@every_row
def test_cupy_asks_a_foreign_object_as_the_table_says(row):
    """The table against the installed CuPy, by an object that records what it is asked."""
    _, kind, *_, call = row
    log = []
    operands = {n: Duck(log, x.shape, x.dtype) for n, x in cupy_calls.OPERANDS.items()}
    try:
        evaluated(call, cp, operands)
    except Exception as error:
        found = classified(error, log)
        if ABSENT.search(str(error)):
            pytest.skip(DECIDES)
    else:
        found = "+".join(sorted(set(log) - {"A"})) or "C"
    if kind == "!":
        assert found in ("C", "E")
    elif found == "X" and kind in ("E+M", "E+M+R"):
        assert "R" in log or "E" in log  # ends where CuPy asks for a number
    else:
        assert found == kind


def classified(error, log):
    if isinstance(error, AttributeError) and str(error).startswith("module 'cupy"):
        return "absent"
    return "X-arr" if isinstance(error, AskedError) else "X"


def test_the_kernels_that_have_rules_are_those_of_the_installed_cupy():
    assert len(cupy_protocols._loaded(cupy_protocols._INNER)) == len(cupy_protocols._INNER)
    assert len(cupy_protocols._loaded(cupy_protocols._REDUCTIONS)) == len(cupy_protocols._REDUCTIONS)
    public = {name for name in dir(cp) if isinstance(getattr(cp, name), cp.ufunc)}
    ruled = {name.removeprefix("cupy.") for name, _ in cupy_protocols._ufuncs().values()}
    unruled = {n for n in public if not any(getattr(cp, n) is getattr(cp, r, None) for r in ruled)}
    assert unruled == {"bitwise_count", "frexp", "gcd", "i0", "lcm", "ldexp"}


def test_the_documentation_counts_what_the_table_says():
    page = Path(__file__).parents[2] / "docs" / "cupy.md"
    text = page.read_text(encoding="utf-8")
    assert cupy_calls.summary() in text
    working = cupy_calls.summary().split()[-4]
    assert f"Of the {working} that work with plain CuPy, {len(WORK_ON_A_CARD)} were read" in text
    for call in WORK_ON_A_CARD:
        assert call.split("cp.")[1].split("(")[0] in text


def test_the_table_holds_about_300_calls_each_once():
    calls = [row[-1] for row in ROWS]
    assert len(set(calls)) == len(calls) >= 300
