"""The command `timeline`: what one transform of a user's function did when, as a trace file."""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from gpujac import settings, trees
from gpujac.adopt import adopt
from gpujac.arrays import Arrays
from gpujac.cli_files import FunctionError, UsageError, load_argument, load_function, place_in, write_whole
from gpujac.errors import ArgnumsRangeError, ArgumentTypeError, GpujacError
from gpujac.timeline import Span, recorded, trace
from gpujac.transforms.hessian import hessian
from gpujac.transforms.jacobian import jacfwd, jacrev
from gpujac.transforms.vjp import grad

__all__ = ["TRANSFORMS", "run"]

TRANSFORMS: dict[str, Callable[..., Any]] = {"jacrev": jacrev, "jacfwd": jacfwd, "grad": grad, "hessian": hessian}


def run(options: argparse.Namespace, arrays: Arrays, pictures: ModuleType | None) -> int:
    """Runs the command; 0, or a CommandError."""
    for option, path, suffix in (("--out", options.out, ".json"), ("--picture", options.picture, ".png")):
        _check_path(option, path, suffix)
    f, path = load_function(options.function)
    args = tuple(trees.map(arrays.there, load_argument(name)) for name in options.at)
    try:
        with settings.override(backend=arrays.name, nvtx="ops" if options.ops else "transforms"):
            call = partial(_transformed(_placed(f, arrays), options), *args)
            for _ in range(options.warm):
                call()
            host, device = recorded(call, arrays)
    except ArgnumsRangeError as error:
        raise UsageError(f"--argnums: {error}") from error
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise FunctionError(f"{options.transform} failed {place_in(path, error)}") from error
    about = {"function": options.function, "transform": options.transform, "arrays": arrays.words}
    text = _text(trace(host, device, about))
    write_whole(options.out, lambda handle: _written(handle, text))
    print(f"arrays       {arrays.words}")
    _report(host, device)
    print(f"written      {options.out}: open it in https://ui.perfetto.dev or chrome://tracing")
    if pictures is not None and options.picture is not None:
        where = arrays.words.split(",")[0].split(":")[0]
        title = f"{options.transform} of {Path(options.function).name} on {where}"
        figure = pictures.timeline(host, device, title)
        write_whole(options.picture, partial(figure.savefig, format="png"))
        print(f"written      {options.picture}")
    return 0


def _placed(f: Callable[..., Any], arrays: Arrays) -> Callable[..., Any]:
    """The function for these arrays: on a device, CuPy in it becomes gpujac.cupy.

    A file that knows no CuPy is NumPy code that is to run on the device: there NumPy becomes
    gpujac.cupy as well.
    """
    if arrays.device is None:
        return f
    modules = [x.__name__ for x in getattr(f, "__globals__", {}).values() if isinstance(x, ModuleType)]
    knows_cupy = any(name.split(".")[0] == "cupy" or name.startswith("gpujac.cupy") for name in modules)
    try:
        return adopt(f) if knows_cupy else adopt(f, library="cupy")
    except ArgumentTypeError:  # not written in Python, so there is nothing to exchange in it
        return f


def _transformed(f: Callable[..., Any], options: argparse.Namespace) -> Callable[..., Any]:
    """The transform of the function; options it refuses are a wrong usage."""
    chunked = {} if options.transform == "grad" else {"chunk_size": options.chunk_size}
    try:
        return TRANSFORMS[options.transform](f, options.argnums, **chunked)
    except GpujacError as error:
        raise UsageError(str(error)) from error


def _check_path(option: str, path: Path | None, suffix: str) -> None:
    if path is None:
        return
    if path.suffix != suffix:
        raise UsageError(f"{option} {path}: the name must end in {suffix}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {str(path.parent)!r}")
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder")


def _text(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1) + "\n").encode()


def _written(handle: IO[bytes], text: bytes) -> None:
    handle.write(text)


def _report(host: list[Span], device: list[Span]) -> None:
    """The time of each kind of range, on the host and where there is a device there too."""
    print(f"ranges       {len(host)}, {len({span.event.name for span in host})} names")
    there = {id(span.event): span for span in device}
    rows: dict[tuple[int, str], list[float]] = {}
    for span in host:
        row = rows.setdefault((span.event.depth, span.event.name), [0, 0.0, 0.0])
        row[0] += 1
        row[1] += span.end_s - span.start_s
        if id(span.event) in there:
            twin = there[id(span.event)]
            row[2] += twin.end_s - twin.start_s
    for (depth, name), (count, host_s, device_s) in rows.items():
        times = f"{1e3 * host_s:10.3f} ms" + (f"  {1e3 * device_s:10.3f} ms on the device" if device else "")
        print(f"  {'  ' * depth + name:30} {count:5} x {times}")
