"""Jacobians: linearize once, then sweep the standard basis chunk by chunk."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from gpujac import ranges
from gpujac.backends.choose import HOST_TYPES, backend_of
from gpujac.backends.host import SCALARS
from gpujac.core.aval import dtype_of, kind
from gpujac.core.trace import payload
from gpujac.errors import ArgumentError, BackendError, DTypeError
from gpujac.transforms import flatten as fl
from gpujac.transforms.basis import BasisSweep
from gpujac.transforms.complex_blocks import in_real_blocks
from gpujac.transforms.given import check_before, is_given
from gpujac.transforms.holomorphic import check_complex
from gpujac.transforms.options import Options
from gpujac.transforms.tracebacks import shorten
from gpujac.transforms.vjp import Linearized


def _jacobian(f: Callable, options: Options) -> Callable:
    @wraps(f, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        token = ranges.push(options.what, ranges.TRANSFORM)
        try:
            if is_given(options.out):
                check_before(options.what, options.out, options.resume, options.argnums, args, kwargs)
            linear = Linearized(options.what, f, args, kwargs, options.argnums, options.has_aux, check=False)
            _check_types(options, linear)
            _check_library(options.what, linear)
            matrix = BasisSweep(options, linear).matrix()
            outputs = linear.outputs
            if not options.with_value:
                return (matrix, outputs.aux) if options.has_aux else matrix
            (y,) = outputs.rebuilt(linear.owned_values())[:1]
            return matrix, ((y, outputs.aux) if options.has_aux else y)
        except Exception as error:  # chunks and sweeps stand between the call and a rule that the user wrote
            shorten(error)
            raise
        finally:
            ranges.pop(token)

    return jacobian_of


def _check_types(options: Options, linear: Linearized) -> None:
    what = options.what
    linear.outputs.check_differentiable(what)
    if not options.holomorphic and not linear.program.complex:
        dtypes = [dtype_of(x) for x in linear.values]
        if not any([kind(d) == "c" for d in dtypes]):
            return
    sides = (linear.point, linear.point.leaves), (linear.outputs, linear.values)
    if options.holomorphic:
        check_complex(what, *sides)
        return
    for side, leaves in sides:
        for i, x in enumerate(leaves):
            dtype = dtype_of(x)
            if kind(dtype) != "c":
                continue
            raise DTypeError(
                f"{what}: {side.name(i)} is {dtype}; the Jacobian of a complex function is ambiguous. Set "
                "holomorphic=True for a holomorphic one, complex_blocks=True for real blocks of any, or split it "
                "into real and imaginary parts"
            )


def _check_library(what: str, linear: Linearized) -> None:
    """Raise where points and outputs are arrays of two libraries: a Jacobian has one."""
    leaves, values = linear.point.leaves, linear.values
    if all([x.__class__ in HOST_TYPES or payload(x).__class__ in HOST_TYPES for x in leaves + values]):
        return
    owners: dict[str, str] = {}
    for side, arrays in ((linear.point, leaves), (linear.outputs, values)):
        for i, x in enumerate(arrays):
            inner = payload(x)
            if inner is not None and inner.__class__ not in SCALARS:
                owners.setdefault(backend_of(inner).name, side.name(i))
    if len(owners) > 1:
        (one, x), (other, y) = list(owners.items())[:2]
        raise BackendError(
            f"{what}: {x} is an array of {one} and {y} one of {other}; the blocks of a Jacobian lie in one "
            "place. Move one over first, as in cupy.asarray(a), or differentiate them in two calls"
        )


def jacrev(f: Callable, argnums: Any = 0, *, has_aux: bool = False, chunk_size: Any = "auto",
           assembly: str = "auto", memory: Any = None, with_value: bool = False, holomorphic: bool = False,
           progress: bool = False, report: Any = None, complex_blocks: bool = False, out: Any = None,
           resume: Any = None) -> Callable:  # fmt: skip
    """The Jacobian by reverse mode (row by row, in chunks), as a function.

    Args:
        f: callable of pytrees of arrays, returning a pytree of real floating arrays.
        argnums: which positional arguments to differentiate: an int, or a tuple of ints.
        has_aux: `f` returns `(output, aux)`; aux is handed through, without a derivative.
        chunk_size: rows per sweep: int ≥ 1 (1: a plain loop), None for one pass, or "auto".
        assembly: "stack" joins the chunks, "preallocate" writes them into the result, "auto"
            preallocates above one chunk. Equal bit for bit at equal chunk size.
        memory: most bytes of one sweep's buffers: an int, "2GB", or None.
        with_value: also return the output of `f`, from the same run.
        holomorphic: allow complex inputs and outputs of a holomorphic function.
        complex_blocks: complex leaves as pairs (re, im) in a last axis of length 2, any function.
        progress: show a bar over the chunks.
        report: a callable that receives the plan (mode, rows, chunk_size, chunks, assembly), and again
            at the end with `peak_bytes`.
        out: where the rows go: None; "host" (from a device through page-locked memory while the next
            chunk is computed; a NumPy result); or an array of the result's shape and dtype, or a tree of
            them, that is filled and returned. See docs/memory.md.
        resume: with `out`, the first row to compute, or the path of a record of the rows that are done.

    Returns:
        A function of the same arguments that returns J, `(J, aux)`, `(J, y)` or `(J, (y, aux))`.
        J has the tree of the output outside, then the argnums layer, then the tree of the
        argument; leaf shapes are output shape + input shape, dtypes those of the inputs.

    Raises:
        DTypeError: integer or complex leaves. ArgumentError: options out of their sets. With `out` also
        ShapeError, DTypeError, StructureError: it does not fit; MutationError: traced by another transform.

    Cost: `f` runs once; one sweep per chunk, in all about m times the cost of `f` for m outputs.
    Memory: the result, the residuals and one chunk's buffers.

    Source: Griewank & Walther, Evaluating Derivatives (2nd edition, 2008), chapter 3, for the
    reverse sweep; the standard basis in chunks as in torch.func.jacrev.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.jacrev(lambda x: np.stack([x[0] * x[1], x[1]]))(np.array([2.0, 3.0]))
        array([[3., 2.],
               [0., 1.]])
    """
    return build("jacrev", "rev", f, argnums, has_aux, chunk_size, assembly, memory, with_value,
                 holomorphic, progress, report, complex_blocks, out, resume)  # fmt: skip


def jacfwd(f: Callable, argnums: Any = 0, *, has_aux: bool = False, chunk_size: Any = "auto",
           assembly: str = "auto", memory: Any = None, with_value: bool = False, holomorphic: bool = False,
           progress: bool = False, report: Any = None, complex_blocks: bool = False, out: Any = None,
           resume: Any = None) -> Callable:  # fmt: skip
    """The Jacobian by forward mode (column by column, in chunks), as a function.

    Args:
        f, argnums, has_aux, ...: as in `jacrev`; `chunk_size` counts columns.

    Returns:
        A function of the same arguments. The result is nested as that of `jacrev`; leaf dtypes
        are those of the outputs.

    Raises:
        DTypeError, ArgumentError: as `jacrev`.

    Cost: `f` runs once, so it may branch on values; one sweep per chunk of the n inputs.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.jacfwd(lambda x: np.stack([x[0] * x[1], x[1]]))(np.array([2.0, 3.0]))
        array([[3., 2.],
               [0., 1.]])
    """
    return build("jacfwd", "fwd", f, argnums, has_aux, chunk_size, assembly, memory, with_value,
                 holomorphic, progress, report, complex_blocks, out, resume)  # fmt: skip


def jacobian(f: Callable, argnums: Any = 0, *, mode: str = "auto", has_aux: bool = False,
             chunk_size: Any = "auto", assembly: str = "auto", memory: Any = None, with_value: bool = False,
             holomorphic: bool = False, progress: bool = False, report: Any = None,
             complex_blocks: bool = False, out: Any = None, resume: Any = None) -> Callable:  # fmt: skip
    """The Jacobian by the cheaper mode: forward if n ≤ 1.5 m, else reverse.

    Args:
        f, argnums, has_aux, ...: as in `jacrev`.
        mode: "auto" picks by the numbers of inputs n and outputs m; "rev" and "fwd" name a mode.

    Returns:
        A function of the same arguments. The result is nested as that of `jacrev`; leaf dtypes
        are the result types of output and input, whatever the mode.

    Raises:
        ArgumentError: an unknown mode; else as `jacrev`.

    Cost: that of the chosen mode.

    Source: the ratio is the one that lineax chooses by.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.jacobian(lambda x: x**2)(np.array([1.0, 2.0]))
        array([[2., 0.],
               [0., 4.]])
    """
    if mode not in ("auto", "rev", "fwd"):
        raise ArgumentError(f'jacobian: mode={mode!r}; choose "auto", "rev" or "fwd"')
    return build("jacobian", mode, f, argnums, has_aux, chunk_size, assembly, memory, with_value,
                 holomorphic, progress, report, complex_blocks, out, resume)  # fmt: skip


def build(what: str, mode: str, f: Callable, argnums: Any, has_aux: bool, chunk_size: Any, assembly: str,
          memory: Any, with_value: bool, holomorphic: bool, progress: bool, report: Any,
          complex_blocks: bool = False, out: Any = None, resume: Any = None) -> Callable:  # fmt: skip
    """The transform called `what`, its options checked."""
    fl.check_callable(what, f)
    extras = (True, False) if complex_blocks else (has_aux, with_value)
    options = Options(what, mode, argnums, extras[0], chunk_size, assembly, memory, extras[1], holomorphic, progress,
                      report, out, resume)  # fmt: skip
    if not complex_blocks:
        return _jacobian(f, options)
    return in_real_blocks(what, f, argnums, has_aux, with_value, holomorphic, lambda g: _jacobian(g, options))
