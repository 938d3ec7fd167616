"""Second derivatives as a whole: forward mode over reverse mode."""

from collections.abc import Callable
from typing import Any

from gpujac.transforms import chunking
from gpujac.transforms.complex_blocks import in_real_blocks
from gpujac.transforms.jacobian import build


def hessian(f: Callable, argnums: Any = 0, *, has_aux: bool = False, chunk_size: Any = "auto",
            inner_chunk_size: Any = "auto", assembly: str = "auto", memory: Any = None,
            with_value: bool = False, progress: bool = False, holomorphic: bool = False,
            complex_blocks: bool = False, out: Any = None, resume: Any = None) -> Callable:  # fmt: skip
    """Second derivatives: `jacfwd` of `jacrev`, as a function.

    Args:
        f: callable of pytrees of arrays; any output (a vector gives a third-order array).
        argnums, has_aux, assembly, memory, with_value, progress: as in `jacrev`.
        holomorphic, complex_blocks: as in `jacrev`; both axes of the second derivative alike.
        out, resume: as in `jacrev`, for the columns of the outer derivative (the last axes).
        chunk_size: columns per outer (forward) sweep. inner_chunk_size: rows per inner sweep.

    Returns:
        A function of the same arguments; the nesting of the output, then argnums and tree of the
        argument twice. With has_aux `(H, aux)`, with_value `(H, y)` or `(H, (y, aux))`.

    Raises:
        As `jacrev`.

    Cost: `f` runs once under two traces; n sweeps of a program about three times as long as `f`.

    Example:
        >>> import numpy as np
        >>> import gpujac as gj
        >>> gj.hessian(lambda x: x[0] ** 2 * x[1])(np.array([1.0, 2.0]))
        array([[4., 2.],
               [2., 0.]])
    """
    chunking.check_chunk_size("hessian", inner_chunk_size, "inner_chunk_size")

    def second(f: Callable, has_aux: bool, with_value: bool) -> Callable:
        inner = build("hessian", "rev", f, argnums, has_aux, inner_chunk_size, assembly, memory, with_value,
                      holomorphic, False, None)  # fmt: skip
        return build("hessian", "fwd", inner, argnums, has_aux or with_value, chunk_size, assembly, memory, False,
                     holomorphic, progress, None, False, out, resume)  # fmt: skip

    if complex_blocks:
        second(f, True, False)  # for its checks, which are due now and not at the call
        return in_real_blocks("hessian", f, argnums, has_aux, with_value, holomorphic, lambda g: second(g, True, False))
    return second(f, has_aux, with_value)
