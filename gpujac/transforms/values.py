"""Looking behind tracers: stop_gradient, value, is_traced."""

from typing import Any

from gpujac import trees
from gpujac.core.trace import Tracer, concrete
from gpujac.transforms.tangent import TangentTrace
from gpujac.transforms.tape import TapeTrace


def stop_gradient(tree: Any) -> Any:
    """The same values with the derivative dropped, under vmap too.

    Args:
        tree: pytree of arrays, traced or not.

    Returns:
        A pytree of the same structure; mapped axes stay, tangents go.

    Raises:
        LeakedTracerError: a traced array outlived its transform.

    Cost: none.

    Example:
        >>> import gpujac as gj
        >>> float(gj.grad(lambda x: x * gj.stop_gradient(x))(3.0))
        3.0
    """
    return trees.map(_stopped, tree)


def _stopped(x: Any) -> Any:
    if not isinstance(x, Tracer):
        return x
    if not x.owner.alive:
        raise x.owner.leaked(x)
    if isinstance(x.owner, TangentTrace):
        return _stopped(x.value)
    if isinstance(x.owner, TapeTrace):  # what is done again later has to stop it again
        return x.owner.applied(_stopped, x)
    inner = _stopped(x.value)
    return type(x)(x.owner, inner, x.aux, x.shape, x.dtype)


def value(x: Any) -> Any:
    """The plain array behind a traced one; drops the derivative on purpose.

    Args:
        x: array, number or traced array (any shape).

    Returns:
        The value, of the library of the inputs; it may share memory with them.

    Raises:
        ConcretizationError: under vmap, where there is one value per lane.

    Cost: none.

    Example:
        >>> import gpujac as gj
        >>> seen = []
        >>> _ = gj.grad(lambda x: (seen.append(float(gj.value(x))), x * x)[1])(3.0)
        >>> seen
        [3.0]
    """
    return concrete(x)


def is_traced(x: Any) -> bool:
    """Whether a transform watches this value.

    Args:
        x: anything.

    Returns:
        True for traced arrays.

    Raises:
        Nothing.

    Cost: none.

    Example:
        >>> import gpujac as gj
        >>> gj.is_traced(1.0)
        False
    """
    return isinstance(x, Tracer)
