"""What every backend offers beyond the array-API namespace that it wraps."""

from collections.abc import Sequence
from typing import Any, Protocol

from gpujac.backends.chain import Chain


class Backend(Protocol):
    """One array library: its namespace and the few in-place helpers that the standard lacks.

    Every array that enters a method is concrete (never traced) and belongs to this backend.
    """

    name: str
    xp: Any
    saturation_bytes: int | None  # of one buffer, from which on a device is busy; None: a CPU

    @property
    def fuses(self) -> bool:
        """Whether sweeps run chains of elementwise entries as one generated kernel."""

    @property
    def matrices(self) -> Any:
        """The kernels of small matrices (a module with the functions of `matrices.py`); None: the library's own."""

    def chain(self, chain: Chain, shape: tuple[int, ...], operands: tuple) -> Any:
        """What `chain` gives over a domain of trailing shape `shape`, as a new array."""

    def function(self, name: str) -> Any:
        """The elementwise function called `name`, gaps of the library filled."""

    def asarray(self, value: Any, dtype: Any, like: Any) -> Any:
        """`value` (a Python or NumPy scalar, or an array) as an array on the device of `like`."""

    def zeros(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        """A new zeroed array on the device of `like`."""

    def ones(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        """A new array of ones on the device of `like`."""

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        """A new array with arbitrary contents on the device of `like`."""

    def ravel(self, x: Any, lead: int) -> Any:
        """`x` with all axes after the first `lead` merged into one."""

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        """`x` with another shape, a view where possible."""

    def permute(self, x: Any, axes: tuple[int, ...]) -> Any:
        """`x` with its axes in another order, a view where possible."""

    def sum(self, x: Any, axes: tuple[int, ...]) -> Any:
        """Sum over `axes`, in the dtype of `x`."""

    def spread(self, x: Any, inner: tuple[int, ...], shape: tuple[int, ...]) -> Any:
        """`x` reshaped to `inner` and broadcast to `shape`; may be a read-only view."""

    def cast(self, x: Any, dtype: Any) -> Any:
        """`x` in another dtype; complex to real takes the real part."""

    def swap_last(self, x: Any) -> Any:
        """`x` with its last two axes swapped, a view where possible."""

    def matmul(self, x: Any, y: Any) -> Any:
        """Matrix product over the last two axes, leading axes broadcast."""

    def matmul_transposed(self, x: Any, y: Any) -> Any:
        """`x @ swap_last(y)`, in the memory order that suits `x`."""

    def solve(self, a: Any, b: Any) -> Any:
        """x with a @ x = b; leading axes broadcast, `b` one vector or a matrix."""

    def argsort(self, x: Any) -> Any:
        """The stable order of the last axis."""

    def stack(self, xs: tuple, axis: int) -> Any:
        """Arrays of one shape along a new axis `axis` (from the end)."""

    def cumsum(self, x: Any, axis: int) -> Any:
        """Running sum along `axis`."""

    def take(self, x: Any, index: Any, axis: int) -> Any:
        """`x` at `index` (any rank) along `axis` (counted from the end)."""

    def add_at(self, buffer: Any, index: Any, values: Any, rest: int) -> None:
        """`buffer[..., index, <rest axes>] += values`, repeated entries of `index` adding up."""

    def last_writer(self, index: Any, size: int) -> Any:
        """For each of `size` positions the last entry of `index` that names it, else -1."""

    def set_diagonal(self, matrix: Any, row: int, column: int, values: Any) -> None:
        """`matrix[..., row + i, column + i] = values[..., i]`; the matrix is C-contiguous."""

    def all_finite(self, x: Any) -> bool | None:
        """Whether every entry is finite; None where asking would synchronize a device."""

    def copy(self, x: Any) -> Any:
        """A C-contiguous copy that shares nothing with `x`."""

    def is_whole(self, x: Any) -> bool:
        """Whether `x` is C-contiguous and owns its memory, as far as the library tells."""

    def shares_memory(self, x: Any, y: Any) -> bool:
        """Whether two arrays may share memory."""

    def blank(self, x: Any) -> Any:
        """A NumPy array of any entries that lies in memory as `x` does; None where that is unknown."""

    def kept(self, constant: Any) -> Any:
        """A constant that the user may write into later, safe for that (a copy where it is cheap)."""

    def check_devices(self, xs: Sequence[Any]) -> None:
        """Raise a BackendError unless all arrays among `xs` are on the device that launches."""

    def swap_order(self, x: Any) -> Any:
        """A 2-d array transposed and C-contiguous."""

    def memory_free_bytes(self) -> int | None:
        """Bytes that can still be allocated, None if unknown."""

    def fetcher(self) -> Any:
        """A `fetch.Fetcher` of results to the host beside the user's stream; None where they are there."""

    def peak(self) -> Any:
        """A context that follows the memory of arrays: `highest` bytes at once; None where nobody counts."""
