"""The libraries of the GPU benchmark: gpujac, torch.func eager and compiled, JAX compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy

from profiling import libraries
from profiling.gpu_cases import GpuCase
from profiling.gpu_device import card, dry
from profiling.libraries import Transform, same

Wait = Callable[[Any], Any]


@dataclass(frozen=True)
class GpuLibrary:
    """A library on the card.

    `np` is the module that its user calls in place of NumPy, `compile` what its user does before
    many calls, `wait(result)` makes a result final. `record` and `elapsed_s` are its CUDA events,
    None where it has none (JAX). `peak_bytes(call)` is the most that one call allocated.
    """

    name: str
    np: Any
    transforms: dict[str, Transform]
    array: Callable[[Any], Any]
    host: Callable[[Any], numpy.ndarray]
    wait: Wait
    compile: Transform = same
    record: Callable[[], Any] | None = None
    elapsed_s: Callable[[Any, Any], float] | None = None
    peak_bytes: Callable[[Callable[[], Any]], int | None] = lambda call: None

    def prepare(self, case: GpuCase) -> Callable[[], Any]:
        """Return a call without arguments that runs the case and does not wait.

        The constants are arguments of what is compiled: caught in a closure, XLA would fold them.
        """
        constants = {name: self.array(value) for name, value in case.constants.items()}
        inputs = tuple(self.array(value) for value in case.inputs)

        def build(given: dict[str, Any]) -> Callable[..., Any]:
            f = case.program(self.np, **given)
            for transform in reversed(case.transforms):
                f = self.transforms[transform](f)
            return f

        if self.compile is same:
            built = build(constants)
            return lambda: built(*inputs)
        compiled = self.compile(lambda given, *points: build(given)(*points))
        return lambda: compiled(constants, *inputs)


def load_numpy(is_dry: bool) -> GpuLibrary:
    """Return gpujac on NumPy, whose results the others must reproduce."""
    return GpuLibrary("numpy", numpy, libraries.gpujac_transforms(), same, numpy.asarray, same)


def load_gpujac(is_dry: bool) -> GpuLibrary:
    """Return gpujac on the device; its functions are CuPy code with our import line."""
    dev = dry() if is_dry else card()
    return GpuLibrary(
        name="gpujac",
        np=import_module("gpujac.cupy"),
        transforms=libraries.gpujac_transforms(),
        array=dev.array,
        host=dev.host,
        wait=lambda result: dev.synchronize(),
        record=dev.record,
        elapsed_s=dev.elapsed_s,
        peak_bytes=(lambda call: None) if is_dry else dev.backend.peak_bytes,
    )


def load_torch(is_dry: bool) -> GpuLibrary:
    """Return torch.func, eager."""
    torch = import_module("torch")
    place = "cpu" if is_dry else "cuda"
    if not is_dry and not torch.cuda.is_available():
        raise ImportError("torch sees no CUDA device")
    events: dict[str, Any] = {}
    if not is_dry:
        events = {"record": lambda: _torch_event(torch), "elapsed_s": _torch_elapsed_s,
                  "peak_bytes": lambda call: _torch_peak(torch, call)}  # fmt: skip
    return GpuLibrary(
        name="torch",
        np=torch,
        transforms=libraries.torch_transforms(),
        array=lambda value: torch.as_tensor(numpy.asarray(value), device=place),
        host=lambda value: value.detach().cpu().numpy(),
        wait=same if is_dry else lambda result: torch.cuda.synchronize(),
        **events,
    )


def load_torch_compile(is_dry: bool) -> GpuLibrary:
    """Return torch.func under torch.compile, with its defaults."""
    torch = import_module("torch")
    eager = load_torch(is_dry)

    def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
        # all cases share one piece of code, which torch recompiles 8 times and then runs eagerly
        torch.compiler.reset()
        return torch.compile(f)

    return GpuLibrary(**{**vars(eager), "name": "torch.compile", "compile": compiled})


def _torch_event(torch: Any) -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _torch_elapsed_s(start: Any, end: Any) -> float:
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _torch_peak(torch: Any, call: Callable[[], Any]) -> int:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    del result
    return int(torch.cuda.max_memory_allocated() - before)


def load_jax(is_dry: bool) -> GpuLibrary:
    """Return JAX, compiled with jit; products in full float32, as CuPy and torch do them."""
    jax = import_module("jax")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    if not is_dry and jax.default_backend() != "gpu":
        raise ImportError("jax sees no CUDA device")
    return GpuLibrary(
        name="jax",
        np=import_module("jax.numpy"),
        transforms=libraries.jax_transforms(jax),
        array=import_module("jax.numpy").asarray,
        host=numpy.asarray,
        wait=jax.block_until_ready,
        compile=jax.jit,
        peak_bytes=(lambda call: None) if is_dry else lambda call: _jax_peak(jax, call),
    )


def _jax_peak(jax: Any, call: Callable[[], Any]) -> int | None:
    """XLA keeps one peak for the whole process: it counts for a case only where the case raised it."""
    device = jax.devices()[0]
    before = device.memory_stats()
    jax.block_until_ready(call())
    after = device.memory_stats()
    if before is None or after["peak_bytes_in_use"] <= before["peak_bytes_in_use"]:
        return None
    return int(after["peak_bytes_in_use"] - before["bytes_in_use"])


LOADERS: dict[str, Callable[[bool], GpuLibrary]] = {
    "numpy": load_numpy,
    "gpujac": load_gpujac,
    "torch": load_torch,
    "jax": load_jax,
    "torch.compile": load_torch_compile,
}

