"""CuPy: the GPU backend, its gaps filled. The one file that imports cupy.

Every launch goes to the stream and the device that are current at that moment, in the calling
thread; nothing here waits for the device.
"""

import math
import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cupy
import cupyx.scipy.special
import numpy as np

from gpujac import ranges, settings
from gpujac.backends import chain_launch, launches, matrices
from gpujac.backends.chain import Chain, interpret
from gpujac.backends.fetch import CuPyLane, Fetcher
from gpujac.backends.host import OF_SCIPY, SCALARS
from gpujac.backends.kernels import Kernel
from gpujac.errors import ArgumentError, BackendError, KernelError

_NEW_ENOUGH = (14,)  # older releases promote Python scalars by NumPy 1's rules
_KEPT_BYTES = 1 << 20  # constants up to this are copied: on the device it costs one small launch
_PLAIN = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "negative": operator.neg,
    "power": operator.pow,
    "copy": lambda x: x,
}


class CuPy:
    """The backend over the namespace `xp`: CuPy's own, or one that stands in for it."""

    name = "cupy"
    xp: Any = cupy
    saturation_bytes: int | None = 64 << 20  # 10 us of launching hide 30 MB of traffic

    def __init__(self) -> None:
        self.special = {
            "guarded": self._guarded,
            "logistic": self._logistic,
            "where": self._where,
            "clip": self._clip,
            **{name: self.of_scipy(name) for name in OF_SCIPY},
        }

    @property
    def fuses(self) -> bool:
        """Whether sweeps run chains of elementwise entries as one generated kernel."""
        return settings.get("kernels") != "off"

    def chain(self, chain: Chain, shape: tuple[int, ...], operands: tuple) -> Any:
        run = chain_launch.run if settings.get("kernels") != "off" else interpret
        return run(self, chain, shape, operands)

    @property
    def matrices(self) -> Any:
        """The kernels of small matrices; None where they are switched off."""
        return matrices if settings.get("kernels") != "off" else None

    def cublas(self) -> tuple[Any, int]:
        """cuBLAS's routines and the handle of this thread; they run on the current stream."""
        return cupy.cuda.cublas, cupy.cuda.device.get_cublas_handle()

    def cusolver(self) -> tuple[Any, int]:
        """cuSOLVER's routines and the handle of this thread; they run on the current stream."""
        return cupy.cuda.cusolver, cupy.cuda.device.get_cusolver_handle()

    def function(self, name: str) -> Any:
        return _PLAIN.get(name) or self.special.get(name) or getattr(self.xp, name)

    def of_scipy(self, name: str) -> Any:
        """A function of scipy.special for arrays of the device."""
        return getattr(cupyx.scipy.special, name)

    def _guarded(self, t: Any, c: Any) -> Any:
        return self._where(self.xp.equal(t, 0), 0, self.xp.multiply(t, c))

    def _logistic(self, x: Any) -> Any:
        # 1 / (1 + exp(-x)) without overflow: exp only of -|x|
        z = self.xp.exp(-self.xp.abs(x))
        return self._where(x >= 0, 1.0, z) / (1 + z)

    def _where(self, condition: Any, x: Any, y: Any) -> Any:
        if type(condition) in (bool, np.bool):
            condition = self.xp.asarray(condition)
        return self.xp.where(condition, x, y)

    def _clip(self, x: Any, low: Any, high: Any) -> Any:
        return self.xp.minimum(self.xp.maximum(x, low), high)

    def asarray(self, value: Any, dtype: Any, like: Any) -> Any:
        if type(value) in SCALARS:  # a fill; an upload would wait for the host's copy
            return self.xp.full((), value, dtype)
        return self.xp.asarray(value, dtype=dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        return self.xp.zeros(shape, dtype)

    def ones(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        return self.xp.ones(shape, dtype)

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        return self.xp.empty(shape, dtype)

    def ravel(self, x: Any, lead: int) -> Any:
        return x.reshape(x.shape[:lead] + (math.prod(x.shape[lead:]),))

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        return x.reshape(shape)

    def permute(self, x: Any, axes: tuple[int, ...]) -> Any:
        return x.transpose(axes)

    def sum(self, x: Any, axes: tuple[int, ...]) -> Any:
        return x.sum(axis=axes, dtype=x.dtype) if axes else x

    def spread(self, x: Any, inner: tuple[int, ...], shape: tuple[int, ...]) -> Any:
        return self.xp.broadcast_to(x.reshape(inner), shape)

    def cast(self, x: Any, dtype: Any) -> Any:
        return x.astype(dtype)

    def swap_last(self, x: Any) -> Any:
        return x.swapaxes(-1, -2)

    def matmul(self, x: Any, y: Any) -> Any:
        if x.ndim > 2 and y.ndim == 2 and x.dtype == y.dtype and x.size and y.size:
            # as one product: above two axes CuPy copies transposed operands and multiplies lead by lead
            out = self.xp.empty((*x.shape[:-1], y.shape[-1]), x.dtype)
            self.xp.dot(x.reshape(-1, x.shape[-1]), y, out=out.reshape(-1, y.shape[-1]))
            return out
        return x @ y

    def matmul_transposed(self, x: Any, y: Any) -> Any:
        return self.matmul(x, y.swapaxes(-1, -2))

    def solve(self, a: Any, b: Any) -> Any:
        # CuPy wants the same batch axes on both sides, where NumPy broadcasts them
        if b.ndim == 1 or a.shape[:-2] == b.shape[:-2]:
            return self.xp.linalg.solve(a, b)
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a = self.xp.broadcast_to(a, lead + a.shape[-2:])
        return self.xp.linalg.solve(a, self.xp.broadcast_to(b, lead + b.shape[-2:]))

    def argsort(self, x: Any) -> Any:
        return self.xp.argsort(x, axis=-1)  # CuPy's sort is always stable

    def stack(self, xs: tuple, axis: int) -> Any:
        return self.xp.stack([self.xp.asarray(x) for x in xs], axis=axis)

    def cumsum(self, x: Any, axis: int) -> Any:
        return self.xp.cumsum(x, axis=axis)

    def index(self, index: Any) -> Any:
        """An index array of NumPy's on the device (one upload), one of CuPy's as it is."""
        return self.xp.asarray(index) if isinstance(index, (np.ndarray, np.generic)) else index

    def take(self, x: Any, index: Any, axis: int) -> Any:
        if settings.get("kernels") == "off":
            return self.xp.take(x, self.index(index), axis=axis)
        return launches.gather(self, x, self.index(index), axis)

    def add_at(self, buffer: Any, index: Any, values: Any, rest: int) -> None:
        index = self.index(index)
        if settings.get("kernels") != "off":
            launches.scatter_add(self, buffer, index, values, rest)
            return
        if settings.get("deterministic") and buffer.dtype.kind in "fc":
            raise ArgumentError(
                'settings: deterministic=True with kernels="off": only a kernel of gpujac adds repeated '
                "indices in a fixed order; set one of the two back."
            )
        launches.add_plainly(self, buffer, index, values, rest)

    def last_writer(self, index: Any, size: int) -> Any:
        # the largest position wins, whatever order the writes come in; atomicMax wants uint64
        index = self.index(index).ravel()
        source = self.xp.zeros(size, np.uint64)
        positions = self.xp.arange(1, index.size + 1, dtype=np.uint64)
        self.xp.maximum.at(source, index % max(size, 1), positions)
        return source.astype(np.intp) - 1

    def set_diagonal(self, matrix: Any, row: int, column: int, values: Any) -> None:
        count, width = values.shape[-1], matrix.shape[-1]
        if count:
            flat = matrix.reshape((*matrix.shape[:-2], matrix.shape[-2] * width))  # a view: the matrix is C-contiguous
            flat[..., row * width + column :: width + 1][..., :count] = values

    def all_finite(self, x: Any) -> bool | None:
        return None  # looking would wait for the device

    def copy(self, x: Any) -> Any:
        return x.copy(order="C")

    def is_whole(self, x: Any) -> bool:
        return x.base is None and x.flags.c_contiguous

    def shares_memory(self, x: Any, y: Any) -> bool:
        return bool(x.size and y.size) and cupy.may_share_memory(x, y)

    def blank(self, x: Any) -> Any:
        if not x.size:
            return np.empty(x.shape, bool)
        steps = [s // x.itemsize for s in x.strides]
        reach = [(n - 1) * s for n, s in zip(x.shape, steps, strict=True)]
        first = -sum([r for r in reach if r < 0])
        span = first + sum([r for r in reach if r > 0]) + 1
        return np.ndarray(x.shape, bool, np.empty(span, bool), first, steps)  # untouched pages cost nothing

    def kept(self, constant: Any) -> Any:
        if self.devices() > 1 and self.device_of(constant) != self.current_device():
            return constant  # a copy would move it; the operation itself will say what is wrong
        return constant.copy() if constant.nbytes <= _KEPT_BYTES else constant

    def swap_order(self, x: Any) -> Any:
        return x.T.copy(order="C")  # always new: x may be a view of a constant of the user's

    def memory_free_bytes(self) -> int | None:
        free, _ = cupy.cuda.runtime.memGetInfo()
        return int(free) + int(cupy.get_default_memory_pool().free_bytes())

    def fetcher(self) -> Any:
        return Fetcher(CuPyLane(cupy))

    def peak(self) -> Any:
        return _Peak()

    def problem(self) -> str | None:
        """Why no device can be used, in the driver's words; None where one can."""
        try:
            return None if cupy.cuda.runtime.getDeviceCount() else "there is no CUDA device"
        except cupy.cuda.runtime.CUDARuntimeError as error:
            return str(error)

    def describe(self) -> str:
        """CuPy's version, the current card, its memory and the CUDA version of its driver."""
        runtime = cupy.cuda.runtime
        facts = runtime.getDeviceProperties(runtime.getDevice())
        driver = runtime.driverGetVersion()
        return (
            f"CuPy {cupy.__version__} on {facts['name'].decode()}, {facts['totalGlobalMem'] / 1e9:.0f} GB, "
            f"driver for CUDA {driver // 1000}.{driver % 1000 // 10}"
        )

    def synchronize(self) -> None:
        """Wait for all work of the current device; no transform does this."""
        cupy.cuda.Device().synchronize()

    def peak_bytes(self, f: Any) -> int:
        """The most bytes of CuPy's pool that one call of f held at once, its result included."""
        with _Peak() as peak:
            result = f()
            self.synchronize()
        del result
        return peak.highest

    def mark(self) -> Any:
        """A point in the current stream: a CUDA event with a time."""
        event = cupy.cuda.Event()
        event.record()
        return event

    def elapsed_s(self, start: Any, end: Any) -> float:
        """The device's seconds between two marks; waits for the second one."""
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(start, end)) / 1e3

    def device_of(self, x: Any) -> int:
        """The number of the device that holds `x`."""
        return int(x.data.device_id)

    def current_device(self) -> int:
        """The device that this thread launches on."""
        return int(cupy.cuda.runtime.getDevice())

    def devices(self) -> int:
        """How many devices there are."""
        return _device_count()

    def check_devices(self, xs: Sequence[Any]) -> None:
        if self.devices() < 2:
            return
        xs = [x for x in xs if isinstance(x, cupy.ndarray)]
        owners: dict[int, Any] = {}
        for x in xs:
            owners.setdefault(self.device_of(x), x)
        if len(owners) > 1:
            (one, a), (other, b) = list(owners.items())[:2]
            raise BackendError(
                f"arrays of two devices in one operation: device {one} {tuple(a.shape)} and device "
                f"{other} {tuple(b.shape)}; copy one over first, as in "
                f"`with cupy.cuda.Device({one}): y = cupy.asarray(y)`"
            )
        current = self.current_device()
        for device in owners:
            if device != current:
                raise BackendError(
                    f"the array of shape {tuple(owners[device].shape)} is on device {device}, but the "
                    f"current device is {current}; call the transform inside "
                    f"`with cupy.cuda.Device({device}):`"
                )

    def launch(self, kernel: Kernel, grid: tuple, block: tuple, args: tuple, shared: int = 0) -> None:
        """Run a kernel of ours on the current stream; `args` as `Kernel` describes them."""
        token = ranges.push_counted(kernel.name, ranges.KERNEL, self.bytes_of, args)
        try:
            self._start(kernel, grid, block, args, shared)
        finally:
            ranges.pop(token)

    def bytes_of(self, args: tuple) -> int:
        """Bytes of the arrays among a kernel's arguments: the payload of its range."""
        return sum([x.nbytes for x in args if isinstance(x, cupy.ndarray)])

    def _start(self, kernel: Kernel, grid: tuple, block: tuple, args: tuple, shared: int) -> None:
        try:
            _raw(kernel)(grid, block, args, shared_mem=shared)
        except cupy.cuda.compiler.CompileException as error:
            raise KernelError(
                f"kernel {kernel.name} does not compile for this device: {error}; settings.kernels = "
                '"off" takes the plain CuPy path instead'
            ) from error


class _Peak(cupy.cuda.MemoryHook):
    """Follows how much of the pool a thread holds, and the most it ever held."""

    name = "gpujac peak"

    def __init__(self) -> None:
        self.held = self.highest = 0

    def malloc_postprocess(self, **facts: Any) -> None:
        self.held += facts["mem_size"]
        self.highest = max(self.highest, self.held)

    def free_postprocess(self, **facts: Any) -> None:
        self.held -= facts["mem_size"]


@lru_cache(None)
def _raw(kernel: Kernel) -> Any:
    """CuPy's kernel object, which compiles and loads once per device."""
    return cupy.RawKernel(kernel.source, kernel.name)


@lru_cache(None)
def _device_count() -> int:
    return int(cupy.cuda.runtime.getDeviceCount())


def _checked_version() -> None:
    found = tuple(int(part) for part in cupy.__version__.split(".")[:1])
    if found < _NEW_ENOUGH:
        raise BackendError(
            f"CuPy {cupy.__version__} is older than gpujac supports (14.0); install a newer one, "
            "for example cupy-cuda13x>=14"
        )


_checked_version()
TYPES: frozenset[type] = frozenset((cupy.ndarray,))
BACKEND = CuPy()
