"""The tests of control flow, second-order products and complex Jacobians once more, with CuPy arrays.

As tests/transforms/test_cupy_again.py, which says how; here without generated kernels only, since no
test below is about them.
"""

import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from gpujac import settings
from tests import device
from tests.twin import Generator, twin

pytestmark = pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")

MODULES = {
    "control": "transforms branch loop scan slices together values_asked operands debug_lanes",
    "transforms": "second_order complex_blocks",
}
LEFT_OUT = {
    "gpujac.cupy.asarray hands a traced array on":
        "values_asked.an_array_of_another_kind_is_asked_for_with_the_same_answer",
    "a device does not check an index, and does not warn": """
        branch.an_index_out_of_bounds_is_an_error_in_a_lane_that_takes_the_branch
        branch.warnings_are_as_before_after_a_branch_that_raised
        together.warnings_of_the_only_branch_are_heard""",
    "keys are NumPy's arrays unless they are made like another": """together.keys_may_be_carried
        second_order.numbers_from_keys_are_the_same_in_all_runs""",
    "CuPy stacks arrays, not numbers": """
        together.what_a_rule_decides_is_no_matter_of_lanes_that_its_arguments_do_not_have
        together.a_checkpoint_refuses_lanes_that_its_arguments_do_not_have""",
    "their bounds are for NumPy's temporaries": """second_order.the_whole_matrix_is_never_held
        second_order.a_sum_of_functions_of_single_entries_takes_one_pass_without_rows
        scan.the_gradient_holds_memory_linear_in_the_steps""",
}  # fmt: skip


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Generator:
    """As in tests/conftest.py, with arrays of the device."""
    return Generator(np.random.default_rng(zlib.crc32(request.node.name.encode())))


@pytest.fixture(autouse=True)
def plain_kernels() -> Iterator[None]:
    """CuPy's own kernels."""
    with settings.override(kernels="off"):
        yield


if not device.MISSING:
    _left_out = {name for names in LEFT_OUT.values() for name in names.split()}
    for _folder, _names in MODULES.items():
        for _name in _names.split():
            for _key, _test in vars(twin(f"tests.{_folder}.test_{_name}")).items():
                if f"{_name}.{_key[5:]}" in _left_out:
                    _left_out.remove(f"{_name}.{_key[5:]}")
                elif _key.startswith("test_"):
                    globals()[f"test_{_name}_{_key[5:]}"] = _test
    assert not _left_out, f"no such tests: {_left_out}"
