"""The command `jacobian`: the Jacobian of a function in any file, reported, checked and saved."""

import argparse
import copy
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpujac import trees
from gpujac.cli_check import check_directions
from gpujac.cli_files import (
    CommandError,
    FunctionError,
    UsageError,
    load_argument,
    load_function,
    place_in,
    save_arrays,
)
from gpujac.errors import GpujacError
from gpujac.machine import bytes_text, memory_now_bytes, memory_peak_bytes, restart_peak
from gpujac.transforms.jacobian import jacobian

__all__ = ["run"]

_PATH_PARTS = re.compile(r"\[(?:'([^']*)'|(\d+))\]|\.(\w+)")


@dataclass(frozen=True)
class _Job:
    """The function, its file, its arguments, and which of them are differentiated."""

    f: Callable[..., Any]
    path: Path
    args: tuple[Any, ...]
    argnums: int | tuple[int, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        """The differentiated arguments as a tuple of positions."""
        return self.argnums if isinstance(self.argnums, tuple) else (self.argnums,)

    def value(self, *args: Any) -> Any:
        """f on plain copies of these arguments; its failure is the user's."""
        try:
            return self.f(*copy.deepcopy(args))
        except (Exception, SystemExit) as error:
            raise FunctionError(f"the function failed {place_in(self.path, error)}") from error


@dataclass(frozen=True)
class _Result:
    """A Jacobian and how it was made."""

    tree: Any
    reports: list[Any]
    seconds: float
    start_bytes: int | None


def run(options: argparse.Namespace) -> int:
    """Runs the command; 0, or a CommandError."""
    _check_out(options.out)
    f, path = load_function(options.function)
    args = tuple(load_argument(name) for name in options.at)
    job = _Job(f, path, args, options.argnums)
    _check_selected(job, options.at)
    _say("function", options.function)
    for name, argument in zip(options.at, args, strict=True):
        _say("argument", f"{name}: {_describe(argument)}")
    y = job.value(*args)
    if options.out is not None and options.out.suffix == ".npy":
        _check_single(job, y, options.out)
    result = _compute(job, options)
    arrays = _by_name(result.tree)
    _report(arrays, result, options)
    if options.check:
        _check(job, result.tree)
    if options.out is not None:
        save_arrays(options.out, arrays)
        _say("written", str(options.out))
    return 0


def _check_out(out: Path | None) -> None:
    if out is None:
        return
    if out.suffix not in (".npy", ".npz"):
        raise UsageError(f"--out {out}: the name must end in .npy or .npz")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {str(out.parent)!r}")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder")


def _check_selected(job: _Job, names: list[str]) -> None:
    """The differentiated arguments must exist and hold real floating numbers."""
    count = len(job.args)
    for i in job.positions:
        if not -count <= i < count:
            raise UsageError(f"--argnums {i}: the number of arguments (--at) is {count}")
        leaves, _ = trees.flatten(job.args[i])
        for leaf, where in zip(leaves, trees.flatten_paths(job.args[i]), strict=True):
            if not np.issubdtype(leaf.dtype, np.inexact):
                raise UsageError(
                    f"--at {names[i]}{where} has dtype {leaf.dtype}, which has no derivative; "
                    "save it as float64, or leave it out of --argnums"
                )
    if len({i % count for i in job.positions}) < len(job.positions):
        raise UsageError("--argnums names an argument twice")


def _check_single(job: _Job, y: Any, out: Path) -> None:
    """A .npy file holds one array, so one output and one differentiated array."""
    outputs = len(trees.flatten(y)[0])
    inputs = sum(len(trees.flatten(job.args[i])[0]) for i in job.positions)
    if outputs * inputs != 1:
        raise UsageError(
            f"--out {out}: the Jacobian has {outputs * inputs} arrays ({outputs} outputs, "
            f"{inputs} inputs) and .npy holds one; use .npz"
        )


def _compute(job: _Job, options: argparse.Namespace) -> _Result:
    """The Jacobian, timed."""
    reports: list[Any] = []
    transformed = _transform(job, options, reports.append)
    restart_peak()
    start_bytes, start = memory_now_bytes(), time.perf_counter()
    try:
        tree = transformed(*job.args)
    except MemoryError as error:
        message = "out of memory; use a smaller --chunk-size, or --memory to cap a chunk"
        raise FunctionError(message) from error
    except (Exception, SystemExit) as error:
        raise FunctionError(f"differentiating failed {place_in(job.path, error)}") from error
    return _Result(tree, reports, time.perf_counter() - start, start_bytes)


def _transform(job: _Job, options: argparse.Namespace, report: Callable[[Any], None]) -> Callable[..., Any]:
    """The library's transform of the function; options it refuses are a wrong usage."""
    progress = sys.stderr.isatty() if options.progress is None else options.progress
    try:
        return jacobian(
            job.f,
            job.argnums,
            mode=options.mode,
            chunk_size=options.chunk_size,
            assembly=options.assembly,
            memory=options.memory,
            progress=progress,
            report=report,
        )
    except GpujacError as error:
        raise UsageError(str(error)) from error


def _by_name(tree: Any) -> dict[str, Any]:
    """The arrays of a Jacobian by where they stand: `J` alone, else as in `mean.0.w`."""
    leaves, paths = trees.flatten(tree)[0], trees.flatten_paths(tree)
    names = [_name(path) for path in paths]
    if len(set(names)) < len(names):  # keys with dots in them: the exact paths are unique
        names = paths
    return dict(zip(names, leaves, strict=True))


def _name(path: str) -> str:
    parts = ["".join(match.groups("")) for match in _PATH_PARTS.finditer(path)]
    return ".".join(parts) or (path or "J")


def _report(arrays: dict[str, Any], result: _Result, options: argparse.Namespace) -> None:
    for name, array in arrays.items():
        size = bytes_text(array.nbytes)
        _say("jacobian", f"{name}: shape {tuple(array.shape)}, dtype {array.dtype}, {size}")
    for plan in result.reports:
        _say("mode", f"{plan.mode} ({'chosen' if options.mode == 'auto' else 'asked for'})")
        _say("chunk size", _chunks(plan, options.chunk_size))
        _say("assembly", plan.assembly)
    _say("time", f"{result.seconds:.3g} s")
    _say("peak memory", _peak(result.start_bytes))


def _chunks(plan: Any, asked: Any) -> str:
    how = "chosen" if asked == "auto" else "asked for"
    size = "none" if plan.chunk_size is None else plan.chunk_size
    lines = "columns" if plan.mode == "fwd" else "rows"
    return f"{size} ({how}): {plan.rows} {lines} in {plan.chunks} chunk{'s' * (plan.chunks != 1)}"


def _peak(start_bytes: int | None) -> str:
    peak = memory_peak_bytes()
    if peak is None or start_bytes is None:
        return "unknown on this system"
    return f"{bytes_text(peak)}, {bytes_text(max(0, peak - start_bytes))} more than before"


def _check(job: _Job, tree: Any) -> None:
    """Prints what the check finds; an error where the Jacobian is wrong, before it is written."""
    found = check_directions(job.value, job.args, job.positions, trees.flatten(tree)[0])
    verdict = (
        f"largest error {found.error:.1e} against central differences in {found.directions} "
        f"random directions, tolerance {found.tolerance:.0e} of the largest entry"
    )
    if not found.good:
        raise CommandError(f"the Jacobian is wrong: {verdict}")
    _say("check", f"ok: {verdict}")


def _describe(argument: Any) -> str:
    if isinstance(argument, dict):
        return "{" + ", ".join(f"{k}: {_describe(v)}" for k, v in argument.items()) + "}"
    return f"{argument.dtype} {tuple(argument.shape)}"


def _say(what: str, value: str) -> None:
    print(f"{what:12} {value}")
