"""What the command line reads and writes: functions in files, arrays, results written whole."""

import importlib.util
import os
import sys
import traceback
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

__all__ = [
    "CommandError",
    "FunctionError",
    "UsageError",
    "load_argument",
    "load_function",
    "place_in",
    "save_arrays",
    "write_whole",
]


class CommandError(Exception):
    """An error that ends a command with one line on stderr and the exit code `code`."""

    code = 1


class UsageError(CommandError):
    """The command was asked for something that cannot be: a missing file, a wrong option."""

    code = 2


class FunctionError(CommandError):
    """The user's own code failed."""


def load_function(target: str) -> tuple[Callable[..., Any], Path]:
    """The function that `path/to/model.py:name` names, and its file.

    The file is run as a module of its own; its folder is importable from it, as when it is run as
    a script. `name` may have dots (`Model.residual`).

    Raises:
        UsageError: no such form, file or name, or the name is not callable.
        FunctionError: the file's own code failed while it was loaded.
    """
    path_text, colon, name = target.rpartition(":")
    if not colon or not path_text or not name:
        raise UsageError(f"{target!r} names no function; write path/to/model.py:function")
    path = Path(path_text)
    if not path.is_file():
        raise UsageError(f"there is no file {path_text!r}")
    found: Any = _run_file(path)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise UsageError(f"{path_text} has no {name!r}{_offer(found)}") from None
    if not callable(found):
        kind = type(found).__name__
        raise UsageError(f"{name!r} in {path_text} is no function but of type {kind}")
    return found, path


def _run_file(path: Path) -> ModuleType:
    # a name of our own, so that a file called json.py does not take the place of json
    spec = importlib.util.spec_from_file_location(f"gpujac_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{str(path)!r} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[spec.name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise FunctionError(f"loading failed {place_in(path, error)}") from error
    return module


def _offer(found: Any) -> str:
    """The public functions of a module or class, as a hint after a wrong name."""
    own = getattr(found, "__name__", "")
    names = [
        name
        for name, value in vars(found).items()
        if callable(value) and not name.startswith("_") and value.__module__ == own
    ]
    return f"; it has {', '.join(sorted(names)[:8])}" if names else ""


def place_in(path: Path, error: BaseException) -> str:
    """Where an error arose and what it says: "in model.py (line 3): ValueError: ..."."""
    frames = traceback.extract_tb(error.__traceback__)
    wanted = path.resolve()
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == wanted]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f" (line {lines[-1]})" if lines else ""
    notes = getattr(error, "__notes__", ())
    text = " ".join(" ".join([str(error), *notes]).split())
    return f"in {path.name}{where}: {type(error).__name__}" + (f": {text}" if text else "")


def load_argument(path_text: str) -> Any:
    """One argument of the function: the array of a .npy file, or the dict of a .npz file.

    Returns:
        A new array, or a dict from name to array for .npz.

    Raises:
        UsageError: no such file, no NumPy file, or one that holds Python objects.
    """
    path = Path(path_text)
    if path.suffix not in (".npy", ".npz"):
        raise UsageError(f"--at {path_text}: use a .npy file, or a .npz file for a dict of arrays")
    if not path.is_file():
        raise UsageError(f"--at {path_text}: there is no such file")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise UsageError(f"--at {path_text} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        # NumPy's own text here advises to load pickles, which can run any code
        raise UsageError(f"--at {path_text} is not a NumPy file of plain numbers") from error


def write_whole(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Writes a file whole or not at all: a file beside it takes its name once it is complete.

    Args:
        path: the file to make or replace.
        write: gets the open binary file.

    Raises:
        CommandError: the disk refused; what was at `path` before is still there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CommandError(f"{path} could not be written: {reason}") from error
    finally:
        part.unlink(missing_ok=True)


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes one array to .npy, or arrays by name to .npz; whole or not at all."""
    if path.suffix == ".npy":
        (array,) = arrays.values()
        write_whole(path, lambda handle: _write_npy(handle, array))
    else:
        write_whole(path, lambda handle: _write_npz(handle, arrays))


def _write_npy(handle: Any, array: Any) -> None:
    np.lib.format.write_array(handle, np.asarray(array), allow_pickle=False)


def _write_npz(handle: IO[bytes], arrays: Mapping[str, Any]) -> None:
    # np.savez takes the names as keywords, so an array called "file" could not be written
    with zipfile.ZipFile(handle, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write_npy(member, array)
