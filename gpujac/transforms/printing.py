"""How traced arrays show themselves."""

from typing import Any

from gpujac.core.trace import Tracer


def describe_dual(name: str, x: Tracer) -> str:
    """A tracer of jvp or vjp: one marker around its value."""
    return f"Traced<{name}>({x.value!r})"


def describe_batched(x: Tracer, size: int) -> str:
    """A tracer of vmap: its logical shape and the lanes behind it."""
    inner: Any = x.value
    text = repr(inner) if isinstance(inner, Tracer) else f"shape={tuple(x.shape)}, dtype={x.dtype}"
    return f"Traced<vmap, {size} lanes>({text})"
