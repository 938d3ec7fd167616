"""The tests of this folder once more, with CuPy arrays in the place of NumPy's.

As in tests/transforms/test_cupy_again.py, no text is copied.
"""

import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from gpujac import settings
from tests import device
from tests.parity.conftest import *  # noqa: F403 (fixtures that the twins ask for)
from tests.twin import Generator, twin

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(device.MISSING), reason=device.MISSING or "CuPy is there")]

MODULES = """slice_argnums grad_transform jacobians hessian jvp linearize writes composability vmap_api vmap_of_grad
    vmap_operators vmap_chunks batched_gradients quirks examples""".split()
# Tests of NumPy alone, and why.
LEFT_OUT = {
    "they ask for NumPy's arrays by gpujac.numpy": """writes.writes_under_vmap_of_jvp
        writes.numpys_own_buffer_is_refused vmap_operators.copies_per_example vmap_operators.copies_into_buffers""",
    "an unselected CuPy array stays one, as CuPy's compiled functions want it":
        "jacobians.a_write_into_another_argument",
    "no array of the device takes part": """vmap_api.a_given_number_of_lanes
        grad_transform.derivatives_of_a_scalar_primitive composability.a_shape_given_as_an_array
        composability.import_is_silent""",
    "CuPy has no such question": "vmap_operators.dtypes_asked_and_changed",
    "half a minute of emulated steps, which the other examples show as well": "examples.maml_with_convolutions",
}  # fmt: skip


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Generator:
    """As in tests/conftest.py, with arrays of the device."""
    return Generator(np.random.default_rng(zlib.crc32(request.node.name.encode())))


@pytest.fixture(autouse=True)
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """What CuPy does by itself; tests/kernels has ours."""
    if device.NAME == "emulated" and "BG9" in request.node.name:
        pytest.skip(reason="SciPy's gammaln of a plain array is a kernel of CuPy's, which needs a card")
    with settings.override(kernels="off" if device.NAME == "emulated" else "auto"):
        yield


if not device.MISSING:
    _left_out = {name for names in LEFT_OUT.values() for name in names.split()}
    for _name in MODULES:
        for _key, _found in vars(twin(f"tests.parity.test_{_name}")).items():
            if f"{_name}.{_key[5:]}" in _left_out:
                _left_out.remove(f"{_name}.{_key[5:]}")
            elif _key.startswith("test_"):
                globals()[f"test_{_name}_{_key[5:]}"] = _found
    assert not _left_out, f"no such tests: {_left_out}"
