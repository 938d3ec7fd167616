"""The note on an error that CuPy raised because a compiled function of its met a traced array."""

import itertools
import sys
from types import FrameType, TracebackType
from typing import Any

from gpujac.array.table import LINALG, TABLE
from gpujac.core.trace import Tracer
from gpujac.errors import ConcretizationError, GpujacError, MutationError

_CUPY = frozenset(("cupy", "cupyx", "cupy_backends"))
_EMULATED = "gpujac.backends.emulated"
_REFUSALS = (TypeError, AttributeError, ValueError, NotImplementedError, IndexError)
_NO_DEVICE = ("cudaErrorInsufficientDriver", "cudaErrorNoDevice")
_OWN_WORDS = ("expected cupy.", "Unsupported type <class 'gpujac.", "cupy.ndarray")
_MARK = "gpujac: "
_USERS_KERNELS = frozenset(("RawKernel", "RawModule", "ElementwiseKernel", "ReductionKernel"))


def explained(error: Exception) -> Exception:
    """The error for the user: with a note on the function of CuPy's and the cure, if it needs one.

    A write of a traced value into a plain CuPy array (`a[i] = x`) becomes a MutationError.
    """
    if "cupy" not in sys.modules or not _may_be_meant(error):
        return error
    frames = _inside_cupy(error.__traceback__)
    if not frames:
        if "TracedArray" in str(error) and any(word in str(error) for word in _OWN_WORDS):
            error.add_note(_text("a compiled function of CuPy's"))  # it left no frame
    elif isinstance(error, ConcretizationError) and frames[0].f_code.co_name.endswith("__setitem__"):
        return MutationError(
            "in-place write of a traced value into a plain CuPy array (a[i] = x): make the array with "
            "np.zeros_like(u), where u is a traced input, or with gpujac.cupy.zeros"
        )
    elif _met_a_tracer(error, frames):
        error.add_note(_text(_public_name(frames[0])))
    return error


def _may_be_meant(error: Exception) -> bool:
    """Whether `error` is of a class that refused arguments have, and has no note of ours."""
    if any(note.startswith(_MARK) for note in getattr(error, "__notes__", ())):
        return False
    if isinstance(error, GpujacError):
        return isinstance(error, ConcretizationError)  # the others say their own cure
    return isinstance(error, _REFUSALS) or any(word in str(error) for word in _NO_DEVICE)


def _inside_cupy(traceback: TracebackType | None) -> list[FrameType]:
    """The frames from the last call of a CuPy function by the user's code on, if it ended there."""
    frames: list[FrameType] = []
    before = "user"
    while traceback is not None:
        frame = traceback.tb_frame
        where = _place(frame)
        if where == "user":
            frames = []
        elif frames or (where == "cupy" and before == "user"):
            frames.append(frame)
        before, traceback = where, traceback.tb_next
    return frames


def _place(frame: FrameType) -> str:
    module = frame.f_globals.get("__name__", "")
    top = module.partition(".")[0]
    if top in _CUPY or module.startswith(_EMULATED):
        return "cupy"
    return "gpujac" if top == "gpujac" else "user"


def _met_a_tracer(error: Exception, frames: list[FrameType]) -> bool:
    if isinstance(error, ConcretizationError):
        return True
    if any(_place(frame) == "gpujac" for frame in frames):
        return False  # CuPy asked the traced array: the error is about something else
    return "TracedArray" in str(error) or any(
        _holds_tracer(x) for frame in frames for x in list(frame.f_locals.values())
    )


def _holds_tracer(x: Any) -> bool:
    return isinstance(x, Tracer) or (type(x) in (list, tuple) and any(isinstance(v, Tracer) for v in x))


def _public_name(frame: FrameType) -> str:
    """What the user calls the function of a frame: cupy.linalg.solve, cupy.ndarray.dot."""
    parts = frame.f_code.co_qualname.split(".")  # Cython writes the module in front
    name = parts[-1]
    if name == "__call__":  # of a ufunc or a kernel
        name = getattr(frame.f_locals.get("self"), "__name__", parts[-2])
        name = "fuse" if name == "Fusion" else name
    module = frame.f_globals["__name__"]
    if name in _USERS_KERNELS:
        return f"cupy.{name}"
    if module.startswith(_EMULATED):  # functions made for one name each
        return f"cupy.ndarray.{frame.f_locals.get('name', name)}"
    if "_ndarray_base" in parts:
        return f"cupy.ndarray.{name}"
    public = list(itertools.takewhile(lambda place: place[0] != "_", module.split(".")))
    holder = ".".join(public)
    return f"{holder}.{name}" if name in vars(sys.modules[holder]) else f"{public[0]}.{name}"


def _text(name: str) -> str:
    last = name.rpartition(".")[2]
    if last in _USERS_KERNELS:
        return (
            f"{_MARK}{name} met a traced array: a kernel of your own has no derivative rule. Launch it in an "
            "implementation of a custom op (gpujac.custom_op, gpujac.impl), which gets plain arrays, and register "
            "impl_save_for_backward and impl_backward, or impl_jvp"
        )
    served = last in TABLE or last in LINALG or last == "fuse" or "." not in name or "ndarray" in name
    if not served:
        return (
            f"{_MARK}{name} met a traced array, for which gpujac has no rule; compute it from "
            "gpujac.value(x) if it needs no derivative, or write it with other functions of gpujac.cupy"
        )
    return (
        f"{_MARK}{name} met a traced array, which its compiled code does not know. Change one line of the "
        "module, `import gpujac.cupy as cp` for `import cupy as cp`, or pass gpujac.adopt(f) for f"
    )
