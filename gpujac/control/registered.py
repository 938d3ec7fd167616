"""The table of custom operations, and where each of their parts comes from."""

import difflib
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from gpujac.core.source import user_line
from gpujac.errors import RegistrationError

LOCK = threading.Lock()
TABLE: dict[str, Any] = {}  # every custom operation by its qualified name


class Part(NamedTuple):
    """A function that somebody registered, and the place that names it in messages."""

    function: Callable
    place: str


def source_of(f: Any) -> str:
    """`file:line` of a function, or of the line that is registering it where it has no source."""
    code = getattr(f, "__code__", None) or getattr(getattr(f, "__wrapped__", None), "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    line = user_line()
    return f"{line.file}:{line.number}" if line else "an unknown place"


def find(qualname: Any) -> Any:
    """The custom operation of that name (an operation itself is returned as it is).

    Raises:
        RegistrationError: no operation has the name; the message lists names like it.

    Example:
        >>> find("demo::nothing")
        Traceback (most recent call last):
        gpujac.errors.RegistrationError: no custom op 'demo::nothing' ...
    """
    if not isinstance(qualname, str):
        if TABLE.get(getattr(qualname, "qualname", "")) is qualname:
            return qualname
        if getattr(qualname, "schema", None) is not None:
            raise RegistrationError(f"{qualname!r} was removed by remove_custom_op; define it again with custom_op")
        raise RegistrationError(
            f'a custom op is named by a text like "ns::name" or by what custom_op returned, not by {qualname!r}'
        )
    found = TABLE.get(qualname)
    if found is None:
        near = difflib.get_close_matches(qualname, list(TABLE), 3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "define it first with custom_op"
        raise RegistrationError(f"no custom op {qualname!r} is registered; {hint}")
    return found
