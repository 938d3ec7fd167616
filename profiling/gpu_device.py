"""The device that `make gpu` measures: a card through CuPy, or the emulated backend in a dry run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy

from profiling.protocol import calibrate

Call = Callable[[], object]


@dataclass(frozen=True)
class Effort:
    """How long one thing is measured: rounds of a batch of calls each, in seconds per batch."""

    rounds: int = 9
    batch_s: float = 0.03


DRY_EFFORT = Effort(rounds=2, batch_s=0.001)


@dataclass(frozen=True)
class Device:
    """What the measurements need of a device.

    `array` and `host` copy from and to NumPy, `synchronize` waits for all queued work, `record`
    marks a point in the queue and `elapsed_s` tells the time between two such points.
    """

    name: str
    backend: Any
    xp: Any
    array: Callable[[Any], Any]
    host: Callable[[Any], numpy.ndarray]
    synchronize: Callable[[], None]
    record: Callable[[], Any]
    elapsed_s: Callable[[Any, Any], float]
    effort: Effort

    def clock(self) -> float:
        """Return the wall clock after all queued work, in seconds."""
        self.synchronize()
        return time.perf_counter()

    def batch_s(self, call: Call, count: int) -> float:
        """Return the device's seconds per call over `count` calls in a row."""
        start = self.record()
        for _ in range(count):
            call()
        return self.elapsed_s(start, self.record()) / count

    def median_s(self, call: Call) -> float:
        """Return the median of the device's seconds per call, warm."""
        count = calibrate(call, self.effort.batch_s, self.clock)
        return statistics.median(self.batch_s(call, count) for _ in range(self.effort.rounds))

    def submit_s(self, call: Call, count: int = 200) -> float:
        """Return the host's seconds per call: what a launch keeps Python busy.

        `count` stays below the depth of the driver's queue, so that no call waits for the device.
        """
        call()
        times = []
        for _ in range(self.effort.rounds):
            self.synchronize()
            start = time.perf_counter()
            for _ in range(count):
                call()
            times.append((time.perf_counter() - start) / count)
        self.synchronize()
        return statistics.median(times)


def card() -> Device:
    """Return the current CUDA device through CuPy."""
    cupy = import_module("cupy")
    choose = import_module("gpujac.backends.choose")

    def record() -> Any:
        event = cupy.cuda.Event()
        event.record()
        return event

    def elapsed_s(start: Any, end: Any) -> float:
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(start, end)) / 1e3

    return Device(
        name="cupy",
        backend=choose.load("cupy"),
        xp=cupy,
        array=cupy.asarray,
        host=cupy.asnumpy,
        synchronize=lambda: cupy.cuda.Device().synchronize(),
        record=record,
        elapsed_s=elapsed_s,
        effort=Effort(),
    )


def dry() -> Device:
    """Return the emulated backend, for the same cases without a card; its times mean nothing."""
    emulated = import_module("gpujac.backends.emulated")

    def host(value: Any) -> numpy.ndarray:
        return numpy.array(emulated.host(value) if isinstance(value, emulated.EmulatedArray) else value)

    return Device(
        name="emulated",
        backend=emulated.BACKEND,
        xp=emulated.BACKEND.xp,
        array=lambda value: emulated.array(numpy.asarray(value)),
        host=host,
        synchronize=lambda: None,
        record=time.perf_counter,
        elapsed_s=lambda start, end: end - start,
        effort=DRY_EFFORT,
    )


def device(is_dry: bool) -> Device:
    """Return the device of a run."""
    return dry() if is_dry else card()


def describe(is_dry: bool) -> dict[str, Any]:
    """Return the card, its memory, driver and CUDA versions; no serial number, no host name."""
    if is_dry:
        return {"card": "none: emulated backend", "slug": "dry"}
    cupy = import_module("cupy")
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    name = properties["name"].decode()
    return {
        "card": name,
        "slug": "-".join(name.lower().split()),
        "cards": runtime.getDeviceCount(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "memory_bytes": properties["totalGlobalMem"],
        "l2_bytes": properties["l2CacheSize"],
        "driver_cuda": _cuda(runtime.driverGetVersion()),
        "runtime_cuda": _cuda(runtime.runtimeGetVersion()),
    }


def _cuda(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
