"""Kernels with one thing wrong: the cases that every kernel passes must notice each of them."""

import pytest

from gpujac.backends import kernels, launches
from gpujac.backends.kernels import Kernel
from gpujac.errors import KernelError
from tests.kernels.cases import RUNS
from tests.kernels.on_cpu import NO_COMPILER, WHY

pytestmark = pytest.mark.skipif(NO_COMPILER, reason=WHY)

GATHER = [
    ("c / rest,", "c / rest1,"),
    ("r = c - j * rest;", "r = c;"),
    ("r1 = r - r0 * rest1;", "r1 = r;"),
    ("rest1 == rest ? 0 : r / rest1", "0"),
    ("index[j * index_stride]", "index[j]"),
    ("gj_wrap((Wide)index[j * index_stride], (Wide)size)", "index[j * index_stride]"),
    ("return i < 0 ? i + size : i;", "return i;"),
    ("if (i >= 0 && i < size) return i;", "if (i < size) return i;"),
    ("place * stride", "place"),
    ("+ r0 * rest0_stride", ""),
    ("r1 * rest1_stride", "r1"),
    ("l0 * row0_stride", "l0"),
    ("l1 * row1_stride", "l0"),
    ("(l0 * rows1 + l1) * columns + c", "l1 * columns + c"),
    ("(l0 * rows1 + l1) * columns + c", "(l0 * rows1 + l1) * columns"),
    ("l1 < rows1", "l1 <= rows1"),
    ("l0 < rows0", "l0 < rows0 - 1"),
    ("c < columns", "c < columns - 1"),
    ("l1 += row_step", "l1 += row_step + 1"),
    ("l0 += gridDim.z", "l0 += 2"),
    ("l0 = blockIdx.z;", "l0 = 0;"),
    ("(O)gridDim.y * blockDim.y", "(O)blockDim.y"),
    ("(O)gridDim.x * blockDim.x;", "(O)blockDim.x;"),
    ("(O)blockIdx.x * blockDim.x + threadIdx.x", "(O)threadIdx.x"),
]
SCATTER_ADD = [
    ("c / rest,", "c / rest1,"),
    ("(Wide)index[j * index_stride]", "(Wide)index[j]"),
    ("place * to_stride", "place"),
    ("j * from_stride", "j"),
    ("r0 * to_rest0", "r0 * from_rest0"),
    ("r1 * from_rest1;", "r1 * to_rest1;"),
    ("l0 * from_row0", "l0 * to_row0"),
    ("l1 * to_row1", "l1 * from_row1"),
    ("gj_atomic_add(target + (to + l0 * to_row0 + l1 * to_row1), value);",
     "target[to + l0 * to_row0 + l1 * to_row1] = target[to + l0 * to_row0 + l1 * to_row1] + value;"),
    ("entry = entry + value;", "entry = value;"),
]  # fmt: skip
ORDERED = [
    ("if (j > 0 && index[j - 1] == place) continue;", ""),
    ("index[j - 1] == place", "index[j - 1] != place"),
    ("k < count &&", ""),
    ("&& index[k] == place", ""),
    ("(O)order[k] * from_stride", "k * from_stride"),
    ("(O)order[k] * from_stride", "(O)order[k]"),
    ("T sum = target[to_row];", "T sum = T();"),
    ("(O)place * to_stride", "j * to_stride"),
    ("rest == 1 ? columns : columns / rest", "columns"),
]
MUTANTS = [
    *((launches.GATHER, "gather_complex64_i32_o32", *change) for change in GATHER),
    *((launches.SCATTER_ADD, "scatter_add_float64_i64_o32", *change) for change in SCATTER_ADD),
    *((launches.SCATTER_ADD, "scatter_add_ordered_float64_o32", *change) for change in ORDERED),
]


@pytest.mark.parametrize(("path", "name", "right", "wrong"), MUTANTS)
def test_a_wrong_kernel_is_noticed(monkeypatch, path, name, right, wrong):
    whole, load = kernels.kernel(path, name), kernels.kernel
    assert right in whole.source, "the kernel has changed: change this list as well"
    head, _, body = whole.source.partition("scatter_add_ordered(") if "ordered" in name else ("", "", whole.source)
    mutant = Kernel(head + ("scatter_add_ordered(" if head else "") + body.replace(right, wrong), name)
    assert mutant != whole
    monkeypatch.setattr(kernels, "kernel", lambda p, n: mutant if n == name else load(p, n))
    launches._gather_plan.cache_clear()
    launches._scatter_plan.cache_clear()
    try:
        with pytest.raises((AssertionError, KernelError)):
            RUNS[path](name, 0)
    finally:
        launches._gather_plan.cache_clear()
        launches._scatter_plan.cache_clear()
