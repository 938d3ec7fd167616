"""The tests of this folder once more, with CuPy arrays in the place of NumPy's.

No text is copied: `tests.twin` runs these files with gpujac.cupy under the name `np`. By default
the modules of `QUICK` run, without generated kernels; with `make test-all` everything, without and
with them (`settings.kernels`).
"""

import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gpujac import settings
from tests import device
from tests.twin import Generator, twin

pytestmark = pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")

QUICK = """checkpoint debug_nans decompositions grad hessian inplace jacfwd jacobian jacrev jvp leaks
    linear_transpose linearize numbers random random_lanes repr values vjp vmap""".split()
SLOW = "chunks control_flow errors generators memory pairs pitfalls ranges threads".split()
# Tests of NumPy alone, and why.
LEFT_OUT = {
    "a fresh interpreter with NumPy's arrays": """
        decompositions.the_table_is_loaded_at_the_first_need_of_a_batched_value_and_not_before
        decompositions.a_derivative_that_has_no_rule_loads_it_too
        decompositions.the_switch_keeps_it_from_being_loaded""",
    "no array of the device takes part": """errors.a_chunk_size_below_one_is_refused_when_built
        errors.a_chunk_size_of_a_wrong_type_is_refused_when_built errors.argnums_of_a_wrong_type
        errors.an_entry_of_argnums_of_a_wrong_type errors.other_options errors.the_mode_of_jacobian
        errors.inner_chunk_size errors.vmap_chunk_size_below_one errors.vmap_chunk_size_of_a_wrong_type
        errors.vmap_randomness_and_method errors.in_dims_of_a_wrong_type errors.something_that_is_no_function
        errors.arrays_without_numbers_are_refused control_flow.what_would_lose_the_derivative_raises
        control_flow.the_error_names_transform_function_and_cure grad.the_identity_of_a_scalar
        grad.the_name_and_docstring_of_f_are_kept grad.fourth_derivative_of_a_scalar hessian.a_scalar_argument
        pairs.perturbations_of_two_levels_are_not_confused values.stop_gradient_stops_all_levels
        values.item_drops_the_derivative_with_a_warning vjp.no_primals_give_an_empty_tuple
        pitfalls.array_classes_with_other_operators_are_refused
        pitfalls.q13_chunk_sizes_are_checked_when_the_transform_is_built
        threads.settings_of_one_thread_do_not_reach_the_other""",
    "counts calls of NumPy's; tests/transforms/test_cupy.py counts launches": """memory.counting_counts
        leaks.an_operation_asks_for_one_frame
        memory.a_pull_through_an_elementwise_chain_is_one_multiplication_per_entry
        memory.a_push_through_an_elementwise_chain_is_one_multiplication_per_entry
        memory.a_sweep_makes_as_many_calls_for_many_rows_as_for_one""",
    "a launched kernel has a range of its own": "ranges.an_operation_costs_no_range_call_at_all",
    "its bound is for NumPy's temporaries; tests/transforms/test_cupy.py has another":
        "memory.a_sweep_frees_each_tangent_after_its_last_reader",
    "CuPy itself reports a bound of a slice that it cannot read": "errors.a_slice_that_ends_at_a_mapped_value",
    "arrays that gpujac.cupy makes inside a transform receive traced values":
        "pitfalls.adding_a_traced_array_into_a_plain_one_is_refused errors.a_value_error_of_the_users_own_is_no_write",
    "a legacy generator of NumPy's": "generators.arguments_beyond_those_of_a_draw_are_refused",
    "an unselected CuPy array stays one, as CuPy's compiled functions want it":
        """pitfalls.a_write_to_an_array_that_is_not_selected_does_not_reach_the_caller
        grad.an_unselected_argument_is_read_as_it_was_at_the_call
        grad.an_unselected_argument_that_f_returns_is_a_copy""",
    "all pairs and chosen triples run here; the triples of all kinds take seven minutes":
        "pairs.any_three_transforms",
    "a range is looked at where that waits for nothing":
        "random_lanes.ends_that_differ_between_lanes_are_looked_at_in_those_that_take_part",
    "a device does not warn": "pitfalls.the_warnings_of_f_are_numpys_own",
}  # fmt: skip


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Generator:
    """As in tests/conftest.py, with arrays of the device."""
    return Generator(np.random.default_rng(zlib.crc32(request.node.name.encode())))


@pytest.fixture(autouse=True, params=device.KERNELS)
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """What CuPy does by itself, and our kernels; in every thread, as some tests start their own."""
    before = settings.kernels
    settings.kernels = request.param
    yield
    settings.kernels = before


# With kernels, each pair meets one chunk size and one kind of function (more would compile for hours), and a
# singular matrix has an infinite inverse, as nobody waits to find it.
WITHOUT_KERNELS = "at_every_chunk_size of_another_kind closed_when_one_raises".split()


def possible(name: str, given: dict[str, Any]) -> bool:
    """Whether there is something to test with these kernels."""
    return given["kernels"] != "auto" or not any(part in name for part in WITHOUT_KERNELS)


def collect(name: str, module: ModuleType, left_out: set[str]) -> None:
    """Put the tests and fixtures of a module among those of this file."""
    for key, found in vars(module).items():
        if not key.startswith("test_"):
            if type(found).__name__ == "FixtureFunctionDefinition":
                globals()[key] = found
        elif f"{name}.{key[5:]}" in left_out:
            left_out.remove(f"{name}.{key[5:]}")
        else:
            globals()[f"test_{name}_{key[5:]}"] = found if name in QUICK else pytest.mark.slow(found)


if not device.MISSING:
    _left_out = {name for names in LEFT_OUT.values() for name in names.split()}
    for _name in QUICK + SLOW:
        collect(_name, twin(f"tests.transforms.test_{_name}"), _left_out)
    assert not _left_out, f"no such tests: {_left_out}"
