"""The command line, `python -m gpujac`: options in, one exit code out.

Exit codes: 0 done; 1 the user's function failed, or the check found the Jacobian wrong; 2 usage:
a missing file or name, a wrong option or argument; 130 interrupted.
"""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from gpujac import arrays, cli_jacobian, cli_timeline, demo, machine, settings
from gpujac.cli_files import CommandError, UsageError
from gpujac.errors import GpujacError

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"gpujac: error: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: what follows `python -m gpujac`; None takes them from the process.

    Returns:
        The exit code. Errors of the options leave as SystemExit(2), as argparse does it.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except CommandError as error:
        if options.traceback:
            traceback.print_exc()
        return _fail(str(error), error.code)
    except GpujacError as error:  # a setting in the environment, outside any user code
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(message: str, code: int) -> int:
    print(f"gpujac: error: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m gpujac", description="Jacobians of array functions.")
    commands = parser.add_subparsers(metavar="command", required=True)
    _add_jacobian(commands)
    _add_info(commands)
    _add_demo(commands)
    _add_timeline(commands)
    return parser


def _add_jacobian(commands: Any) -> None:
    add = commands.add_parser(
        "jacobian",
        help="the Jacobian of a function in a file",
        description="Computes the Jacobian of a function of NumPy arrays, in chunks of rows.",
    )
    o = add.add_argument
    o("function", help="path/to/model.py:name")
    o("--at", action="append", required=True, metavar="FILE",
      help="an argument of the function: .npy for an array, .npz for a dict of arrays; "
           "repeat it for several arguments, in their order")  # fmt: skip
    o("--argnums", type=_argnums, default=0, metavar="I[,J...]",
      help="differentiate with respect to these arguments (default 0)")  # fmt: skip
    o("--mode", choices=("auto", "rev", "fwd"), default="auto",
      help="reverse or forward; auto picks by the sizes (default)")  # fmt: skip
    o("--chunk-size", type=_chunk_size, default="auto", metavar="auto|none|K",
      help="rows per sweep; none does all in one (default auto)")  # fmt: skip
    o("--assembly", choices=("auto", "stack", "preallocate"), default="auto",
      help="how chunks are put together (default auto)")  # fmt: skip
    o("--memory", type=_memory, metavar="SIZE", help="cap on what one chunk may hold, as in 2GB")
    o("--out", type=Path, metavar="FILE",
      help="write the Jacobian: .npy for one array, .npz for any; whole or not at all")  # fmt: skip
    o("--check", action="store_true",
      help="compare with central differences in random directions; exit 1 if wrong")  # fmt: skip
    o("--progress", action=argparse.BooleanOptionalAction, default=None,
      help="progress bar over chunks (default: where stderr is a terminal)")  # fmt: skip
    o("--traceback", action="store_true", help="show the whole traceback of an error")
    add.set_defaults(run=cli_jacobian.run)


def _add_info(commands: Any) -> None:
    add = commands.add_parser("info", help="versions, backends, device, memory, settings")
    add.set_defaults(run=_info, traceback=False)


def _add_demo(commands: Any) -> None:
    add = commands.add_parser(
        "demo",
        help="a stiff reaction-diffusion model: its Jacobian, and a time stepper that uses it",
        description="The 2-D Brusselator: Jacobian in chunks, checks, a table, time stepping.",
    )
    o = add.add_argument
    o("--size", type=_at_least(3), default=24, metavar="N", help="grid points per side (24)")
    o("--steps", type=_at_least(1), default=115, metavar="K", help="time steps (115)")
    o("--out", type=Path, default=Path(), metavar="DIR", help="folder of the pictures (here)")
    o("--pictures", action=argparse.BooleanOptionalAction, default=None,
      help="write two pictures (default: where matplotlib is installed)")  # fmt: skip
    _add_backend(o)
    o("--traceback", action="store_true", help="show the whole traceback of an error")
    add.set_defaults(run=_demo)


def _add_timeline(commands: Any) -> None:
    add = commands.add_parser(
        "timeline",
        help="what a transform of a function in a file did when, as a Chrome trace",
        description="Records one call of a transform and writes its ranges as a trace file.",
    )
    o = add.add_argument
    o("function", help="path/to/model.py:name")
    o("--at", action="append", required=True, metavar="FILE",
      help="an argument of the function, .npy or .npz; repeat it for several")  # fmt: skip
    o("--out", type=Path, required=True, metavar="FILE", help="the trace, .json, for ui.perfetto.dev")
    o("--transform", choices=tuple(cli_timeline.TRANSFORMS), default="jacrev", help="default jacrev")
    o("--argnums", type=_argnums, default=0, metavar="I[,J...]",
      help="differentiate with respect to these arguments (default 0)")  # fmt: skip
    o("--chunk-size", type=_chunk_size, default="auto", metavar="auto|none|K", help="rows per sweep")
    o("--ops", action="store_true", help="also a range per operation of the function")
    o("--warm", type=_at_least(0), default=1, metavar="N", help="calls before the one that is recorded (1)")
    o("--picture", type=Path, metavar="FILE", help="also draw it, .png")
    _add_backend(o)
    o("--traceback", action="store_true", help="show the whole traceback of an error")
    add.set_defaults(run=_timeline)


def _timeline(options: argparse.Namespace) -> int:
    pictures = _pictures(True) if options.picture is not None else None
    return cli_timeline.run(options, _arrays(options.backend), pictures)


def _info(options: argparse.Namespace) -> int:
    lines = machine.info()
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:{width}}  {value}")
    return 0


def _demo(options: argparse.Namespace) -> int:
    pictures = _pictures(options.pictures)
    if pictures is not None and not options.out.is_dir():
        raise UsageError(f"--out {options.out}: there is no such folder")
    where = _arrays(options.backend)
    try:
        with settings.override(backend=where.name):  # what gpujac.cupy stands on
            demo.run(options.size, options.steps, pictures, options.out, where)
    except ArithmeticError as error:
        raise CommandError(str(error)) from error
    return 0


def _add_backend(o: Any) -> None:
    o("--backend", choices=arrays.CHOICES, default="auto",
      help="run on these arrays; auto takes CuPy where a card is found, else NumPy (default)")  # fmt: skip


def _arrays(wanted: str) -> arrays.Arrays:
    """The arrays that were asked for; a card that is not there is a wrong usage."""
    try:
        return arrays.chosen(wanted)
    except GpujacError as error:
        raise UsageError(f"--backend {wanted}: {error}") from error


def _pictures(wanted: bool | None) -> ModuleType | None:
    """The pictures module, the one that imports matplotlib; None where there are to be none."""
    if wanted is False:
        return None
    try:
        return importlib.import_module("gpujac.pictures")
    except ImportError as error:
        message = "pictures need matplotlib: pip install 'gpujac[plot]'"
        if wanted:
            raise UsageError(message) from error
        print(f"no pictures: {message}", file=sys.stderr)
        return None


def _chunk_size(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    return _at_least(1, "auto, none or a whole number of at least 1")(text)


def _at_least(low: int, wanted: str = "") -> Any:
    wanted = wanted or f"a whole number of at least {low}"

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return int(text)

    return read


def _argnums(text: str) -> int | tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers:
        message = f"{text!r} is not a position or positions, as in 0 or 0,2"
        raise argparse.ArgumentTypeError(message)
    return numbers if "," in text else numbers[0]


def _memory(text: str) -> int | None:
    try:
        return settings.parse_bytes(text, "--memory")
    except GpujacError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
