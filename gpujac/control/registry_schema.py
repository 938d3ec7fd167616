"""What a custom operation takes and returns, read from the signature of its prototype."""

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpujac.errors import RegistrationError

RESERVED = frozenset(("gpujac", "numpy", "cupy", "cupyx", "scipy"))
_ARRAYS = frozenset(("ndarray", "Array", "EmulatedArray", "TracedArray"))
_PLAIN = (int, float, bool, str, complex, np.dtype, type)
_IN_LISTS = (int, float, bool, str)
_ACCEPTED = {
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
    complex: (int, float, complex, np.number),
    bool: (bool, np.bool_),
    str: (str,),
}  # by annotation, what a call may give
_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY
_WORDS = (
    "an array (np.ndarray), Optional of one, a list of arrays, or a static value: int, float, bool, str, complex, "
    "dtype, Optional of these, or a list of int, float, bool or str"
)


class Parameter(NamedTuple):
    """One parameter: kind "array", "optional", "list" (of arrays) or "static"."""

    name: str
    kind: str
    annotation: Any


class Schema(NamedTuple):
    """The parameters in their order, how many arrays come out, and the prototype's signature."""

    parameters: tuple[Parameter, ...]
    outputs: int
    signature: inspect.Signature
    inputs: Any  # the named tuple that rules get

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of the parameters that take arrays."""
        return tuple([p.name for p in self.parameters if p.kind != "static"])


def checked_name(qualname: Any) -> str:
    """The name of a new operation without its namespace, after all that it must satisfy."""
    if not isinstance(qualname, str) or qualname.count("::") != 1:
        raise RegistrationError(
            f'custom_op: {qualname!r} is no qualified name; expected a namespace and a name, as in "mylib::smooth"'
        )
    space, name = qualname.split("::")
    if "." in space or not space.isidentifier():
        raise RegistrationError(
            f"custom_op: the namespace {space!r} of {qualname!r} must be an identifier, and not contain '.'"
        )
    if space in RESERVED:
        raise RegistrationError(
            f"custom_op: the namespace {space!r} of {qualname!r} is reserved ({', '.join(sorted(RESERVED))}); "
            "use a name of your own"
        )
    if "." in name:
        raise RegistrationError(
            f"custom_op: {qualname!r} names an overload; an operation has one signature, so use a name without '.'"
        )
    if not name.isidentifier():
        raise RegistrationError(f"custom_op: the name {name!r} of {qualname!r} must be an identifier")
    return name


def schema_of(qualname: str, prototype: Any) -> Schema:
    """What the prototype's signature says.

    Raises:
        RegistrationError: it is no plain function, has another name than the operation, lacks an
        annotation, or takes or returns what an operation cannot.
    """
    name = checked_name(qualname)
    if not isinstance(prototype, types.FunctionType):
        raise RegistrationError(
            f"custom_op {qualname}: the prototype must be a function (def {name}(...)), not {type(prototype).__name__}"
        )
    if prototype.__name__ != name:
        raise RegistrationError(
            f"custom_op {qualname}: the prototype is called {prototype.__name__!r}; give it the name {name!r}"
        )
    signature = inspect.signature(prototype)
    hints = _hints(qualname, prototype)
    parameters = tuple([_parameter(qualname, p, hints) for p in signature.parameters.values()])
    outputs = _outputs(qualname, signature, hints)
    names = [p.name for p in parameters]
    return Schema(parameters, outputs, signature, _named_tuple(f"{name}_inputs", names))


def _named_tuple(name: str, fields: list[str]) -> Any:
    """A named tuple class; a field that Python refuses (`_x`) is renamed by its position."""
    return collections.namedtuple(name, fields, rename=True)


def _hints(qualname: str, prototype: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(prototype)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise RegistrationError(
            f"custom_op {qualname}: an annotation of the prototype cannot be read ({error}); use {_WORDS}"
        ) from None


def _parameter(qualname: str, p: inspect.Parameter, hints: dict[str, Any]) -> Parameter:
    where = f"custom_op {qualname}: parameter {p.name!r}"
    if p.name == "self":
        raise RegistrationError(f"{where} is refused: an operation is no method; use another name")
    if p.kind not in _POSITIONAL:
        raise RegistrationError(
            f"{where} is {p.kind.description}; an operation takes parameters by position, so that its rules can "
            "(arrays by keyword only have no place there)"
        )
    if p.name not in hints:
        raise RegistrationError(f"{where} has no annotation; annotate it as {_WORDS}")
    found = _kind(hints[p.name])
    if found is None:
        raise RegistrationError(
            f"{where} is annotated as {text_of(hints[p.name])}, which is not supported; use {_WORDS}"
        )
    return Parameter(p.name, found, hints[p.name])


def is_array_type(annotation: Any) -> bool:
    """Whether an annotation names arrays: np.ndarray, cupy.ndarray, NDArray[...], a class `Array`."""
    cls = typing.get_origin(annotation) or annotation
    return isinstance(cls, type) and cls.__name__ in _ARRAYS


def _kind(annotation: Any) -> str | None:
    if is_array_type(annotation):
        return "array"
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        rest = [a for a in inner if a is not type(None)]
        if len(rest) != 1 or len(rest) == len(inner):
            return None
        return {"array": "optional", "static": "static"}.get(_kind(rest[0]) or "")
    if origin in (list, collections.abc.Sequence) and inner:
        if is_array_type(inner[0]):
            return "list"
        return "static" if inner[0] in _IN_LISTS else None
    return "static" if annotation in _PLAIN or origin in (np.dtype, type) else None


def _outputs(qualname: str, signature: inspect.Signature, hints: dict[str, Any]) -> int:
    where = f"custom_op {qualname}: the prototype"
    if signature.return_annotation is inspect.Signature.empty:
        raise RegistrationError(f"{where} has no return annotation; write -> np.ndarray or -> tuple[np.ndarray, ...]")
    found = hints.get("return")
    if found is None or found is type(None):
        raise RegistrationError(
            f"{where} returns nothing; an operation is functional: it returns new arrays and writes into none"
        )
    if is_array_type(found):
        return 1
    inner = typing.get_args(found)
    if typing.get_origin(found) is tuple and inner and all(is_array_type(a) for a in inner):
        return len(inner)
    raise RegistrationError(
        f"{where} returns {text_of(found)}; it must be an array or a tuple of a fixed number of arrays, as in "
        "tuple[np.ndarray, np.ndarray]"
    )


def is_value_of(annotation: Any, x: Any) -> bool:
    """Whether a static argument is what its annotation says; numbers widen, and a dtype may be spelled anyhow."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any([x is None if a is type(None) else is_value_of(a, x) for a in inner])
    if origin in (list, collections.abc.Sequence):
        return isinstance(x, (list, tuple)) and all([is_value_of(inner[0], v) for v in x])
    if np.dtype in (annotation, origin):
        return _is_dtype(x)
    return isinstance(x, _ACCEPTED.get(annotation, type))


def _is_dtype(x: Any) -> bool:
    try:
        return x is not None and np.dtype(x) is not None
    except (TypeError, ValueError):
        return False


def text_of(annotation: Any) -> str:
    """An annotation as messages spell it."""
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)
