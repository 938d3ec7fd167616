"""NVTX ranges per operation: traces whose every bound operation opens one, where that was asked for.

`settings.nvtx="ops"` is read when a transform opens its trace, so an operation pays nothing for the
possibility: the trace of a transform that nobody watches is the plain class.
"""

from functools import cache
from typing import Any

from gpujac import ranges
from gpujac.core.trace import Trace
from gpujac.settings import get as setting

_BINDS = ("unary", "binary", "pointwise", "linear", "joint", "general", "call")


def watched(kind: type) -> type:
    """The trace class to open: `kind`, or where asked a twin whose operations open ranges.

    Example:
        >>> from gpujac import settings
        >>> from gpujac.transforms.jvp import JvpTrace
        >>> watched(JvpTrace) is JvpTrace
        True
        >>> with settings.override(nvtx="ops"):
        ...     issubclass(watched(JvpTrace), JvpTrace)
        True
    """
    return kind if setting("nvtx") != "ops" else _twin(kind)


@cache
def _twin(kind: type[Trace]) -> type:
    """A subclass of a trace class; one range per operation, also where one bind calls another."""

    def bind(method: Any) -> Any:
        def opened(self: Any, op: Any, *operands: Any) -> Any:
            outer = self.bound
            if outer is op:  # a short way that hands over to the general one
                return method(self, op, *operands)
            self.bound = op
            token = ranges.push(op.name, ranges.TRACE)
            try:
                return method(self, op, *operands)
            finally:
                self.bound = outer
                ranges.pop(token)

        return opened

    def start(self: Any, *arguments: Any) -> None:
        kind.__init__(self, *arguments)
        self.bound = None

    binds = {name: bind(getattr(kind, name)) for name in _BINDS}
    return type(kind.__name__, (kind,), {"__slots__": ("bound",), "__init__": start, **binds})
