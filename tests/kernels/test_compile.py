"""Every kernel compiled for every architecture without a GPU: no complaint, no spill, no new registers."""

import re
from functools import cache
from pathlib import Path

import pytest

import gpujac
from gpujac.backends import kernels
from gpujac.backends.kernels import Kernel
from gpujac.errors import KernelError
from tests import device
from tests.kernels import compiling, registers
from tests.kernels.cases import RUNS
from tests.kernels.families import FAMILIES

PACKAGE = Path(gpujac.__file__).resolve().parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.cu"))
QUICK = (75, 90, 120)  # the oldest, one of a data centre, the newest; all of them in the slow tests
OFTEN = ("ops/gather.cu", "ops/scatter_add.cu")  # the others on one architecture, unless slow tests run
TABLE = registers.table()

needs_nvrtc = pytest.mark.skipif(compiling.MISSING, reason=compiling.WHY)
every_architecture = pytest.mark.parametrize(
    ("family", "architecture"),
    [
        (f, a) if a == 90 or (a in QUICK and f in OFTEN) else pytest.param(f, a, marks=pytest.mark.slow)
        for f in FAMILIES
        for a in compiling.ARCHITECTURES
    ],
)


@cache
def usage(family, architecture):
    return compiling.usage_of(FAMILIES[family](), architecture)


@needs_nvrtc
@every_architecture
def test_every_kernel_compiles_without_a_complaint_or_a_spill(family, architecture):
    found, complaints = usage(family, architecture)
    assert complaints == ""
    assert set(found) == set(FAMILIES[family]())
    assert {label: u.spill_bytes for label, u in found.items() if u.spill_bytes} == {}


@needs_nvrtc
@every_architecture
def test_no_kernel_needs_other_registers_than_the_table_says(family, architecture):
    found, _ = usage(family, architecture)
    column = TABLE["architectures"].index(architecture)
    kept = {label: row[column] for label, row in TABLE[family].items()}
    moved = {
        label: (kept.get(label), u.registers)
        for label, u in found.items()
        if label not in kept or abs(u.registers - kept[label]) > 0.1 * kept[label]
    }
    assert moved == {}, "(kept, found): if meant, renew the table: python -m tests.kernels.registers --write"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_has_every_kernel_and_no_other(family):
    assert set(TABLE[family]) == set(FAMILIES[family]())


def test_the_table_is_about_what_is_compiled():
    assert set(TABLE) == {"nvrtc", "architectures", *FAMILIES}
    assert tuple(TABLE["architectures"]) == compiling.ARCHITECTURES


@needs_nvrtc
@pytest.mark.skipif(device.NAME == "cupy", reason="the compiler of a card's machine may be another")
def test_the_table_was_made_by_the_pinned_compiler():
    assert TABLE["nvrtc"] == compiling.VERSION


@needs_nvrtc
def test_every_architecture_is_one_that_the_compiler_knows():
    assert set(compiling.ARCHITECTURES) <= set(compiling.nvrtc.getSupportedArchs())


# ---------------------------------------------------------------- no kernel without both proofs


@pytest.mark.parametrize("path", FILES)
def test_no_kernel_file_is_left_out(path):
    assert kernels.entries(path), "a kernel file has entry points, one per line, that begin with ENTRY("
    assert path in FAMILIES, "add the file to tests/kernels/families.py, so that it is compiled"
    assert path in RUNS, "add the file to tests/kernels/cases.py, so that it is run on the CPU"


@pytest.mark.parametrize("path", FILES)
def test_every_entry_point_stands_on_a_line_of_its_own(path):
    text = kernels.load(path)
    assert len(re.findall(r"__global__", text)) == len(re.findall(r"#define \w*ENTRY\(", text))
    assert len(set(kernels.entries(path))) == len(kernels.entries(path))


# ---------------------------------------------------------------- the checks themselves see what they look for


@needs_nvrtc
def test_a_warning_is_seen():
    source = 'extern "C" __global__ void k(float* x) { int unused = 3; x[0] = 1; }\n'
    assert "unused" in compiling.compiled(source, 90)[1]


@needs_nvrtc
def test_an_error_is_seen():
    assert "nonsense" in compiling.compiled('extern "C" __global__ void k(float* x) { nonsense; }\n', 90)[1]


@needs_nvrtc
def test_a_spill_is_seen():
    lines = "\n".join(f"    double a{k} = x[{k} * n];" for k in range(80))
    mixed = "\n".join(f"    a{k} = a{k} * a{(k + 7) % 80} + a{(k * k) % 80};" for k in range(80))
    stored = "\n".join(f"    y[{k} * n] = a{k};" for k in range(80))
    source = (
        'extern "C" __global__ void __launch_bounds__(1024) k(const double* x, double* y, int n) {\n'
        f"{lines}\n    __syncthreads();\n{mixed}\n{mixed}\n{stored}\n}}\n"
    )
    found, complaints = compiling.compiled(source, 75)
    assert complaints == ""
    assert found["k"].spill_bytes > 0


# ---------------------------------------------------------------- texts


def test_headers_are_pasted_once_in_canonical_form():
    text = kernels.expand('#include "complex.cuh"\n#include "types.cuh"  \r\nint x;   \n\n\n\nint y;')
    assert text.count("struct gj_word8") == 1
    assert '#include "' not in text
    assert text.endswith("int x;\n\nint y;\n")
    assert kernels.expand(text) == text


def test_a_header_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(KernelError, match=r'includes "nothing\.cuh", which gpujac does not have; it has atomic\.cuh, '):
        kernels.expand('#include "nothing.cuh"\n')


def test_one_entry_point_leaves_the_others_out():
    kernel = kernels.kernel("ops/gather.cu", "gather_word8_i32_o32")
    assert kernel is kernels.kernel("ops/gather.cu", "gather_word8_i32_o32")
    assert re.findall(r"^ENTRY\((\w+)", kernel.source, re.MULTILINE) == ["gather_word8_i32_o32"]


def test_an_entry_point_that_is_not_there_is_refused():
    with pytest.raises(KernelError, match=r"ops/gather\.cu has no entry point 'gather'; it has gather_word8_i32_o32, "):
        kernels.kernel("ops/gather.cu", "gather")
    with pytest.raises(KernelError, match=r"no kernel file 'ops/nothing\.cu'"):
        kernels.load("ops/nothing.cu")


def test_equal_text_is_the_same_kernel():
    assert Kernel("a b", "b") == Kernel("a" + " b", "b")
    assert hash(Kernel("a b", "b")) == hash(Kernel("a" + " b", "b"))
    assert Kernel("a b", "b") != Kernel("a b", "a")
