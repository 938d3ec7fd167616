"""A custom operation: its parts, how a call finds the implementation, and the arrays of one call."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from gpujac import ranges
from gpujac.array.traced import TracedArray
from gpujac.backends.choose import HOST_TYPES, backend_of, is_array
from gpujac.backends.host import SCALARS
from gpujac.control.custom_layout import ARRAYS
from gpujac.control.registered import Part, find
from gpujac.control.registry_call import Arrangement, OpCall
from gpujac.control.registry_schema import Parameter, Schema, is_value_of, text_of
from gpujac.core.aval import Aval, dtype_of, shape_of
from gpujac.core.taking import TAKING
from gpujac.core.trace import OPEN, Tracer, top_trace
from gpujac.errors import ArgumentTypeError, MissingRuleError, RegistrationError
from gpujac.transforms import flatten as fl

DEVICES = ("cpu", "cuda")
_DEVICE_OF = {"numpy": "cpu", "cupy": "cuda", "emulated": "cuda"}
_NUMBERS = (int, float, complex, bool)


class CustomOp:
    """An operation that a user has defined; call it like its prototype.

    Attributes:
        qualname: "ns::name".
        schema: its parameters and how many arrays it returns.
    """

    def __init__(self, qualname: str, schema: Schema, prototype: Any, place: str) -> None:
        self.qualname = qualname
        self.schema = schema
        self.place = place
        self.parts: dict[str, Part] = {}
        self.differentiable: tuple[bool, ...] = (True,) * schema.outputs
        self.names = schema.arrays
        self.single = schema.outputs == 1
        self._count = len(schema.parameters)
        self.bare = all([p.kind == "array" for p in schema.parameters])
        self._usual = OpCall(self, Arrangement(schema, (1,) * self._count))
        self.__name__ = prototype.__name__
        self.__qualname__ = prototype.__qualname__
        self.__module__ = prototype.__module__
        self.__doc__ = prototype.__doc__

    def __repr__(self) -> str:
        return f"<custom op {self.qualname}{self.schema.signature}>"

    def __reduce__(self) -> tuple:
        return find, (self.qualname,)

    def has(self, kind: str) -> bool:
        """Whether a part is registered: "cpu", "cuda", "abstract", "backward", "jvp", ..."""
        return kind in self.parts

    def add(self, kinds: Sequence[str], what: str, part: Part) -> None:
        """Take a part under each kind; a second one of a kind is refused."""
        for kind in kinds:
            if kind in self.parts:
                raise RegistrationError(
                    f"{what}: {self.qualname} already has a {kind} implementation, registered at "
                    f"{self.parts[kind].place}"
                )
        self.parts.update(dict.fromkeys(kinds, part))
        self._usual.refresh()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call: Any = self._usual
        operands: Any = args
        if not self.bare or kwargs or len(args) != self._count:
            call, operands = self.arranged(args, kwargs)
        elif len(args) == 1 and args[0].__class__ is TracedArray and not TAKING.masks:  # nothing to look at
            ys = args[0].owner.call(call, args)
            return ys[0] if self.single else ys
        else:
            for x in args:
                if x.__class__ not in ARRAYS:
                    operands = tuple([self._array(p, x) for p, x in zip(self.schema.parameters, args, strict=True)])
                    break
        top = top_trace(operands)
        if top is None:
            ys = call.run(*operands)
        else:
            ys = call.in_branch(top, operands) if TAKING.masks else top.call(call, operands)
        return ys[0] if self.single else ys

    def arranged(self, args: tuple, kwargs: dict) -> tuple[Any, tuple]:
        """The call and its flat operands."""
        bound = self.schema.signature.bind(*args, **kwargs)  # a wrong call is Python's own TypeError
        bound.apply_defaults()
        entries: list = []
        operands: list = []
        for parameter in self.schema.parameters:
            value = bound.arguments[parameter.name]
            if parameter.kind == "static":
                entries.append((self._static(parameter, value),))
                continue
            if parameter.kind == "optional" and value is None:
                entries.append(-1)
                continue
            if parameter.kind != "list":
                operands.append(self._array(parameter, value))
                entries.append(1)
                continue
            if not isinstance(value, (list, tuple)):
                raise self._wrong(parameter, value, "a list of arrays")
            operands += [self._array(parameter, x) for x in value]
            entries.append(len(value))
        return OpCall(self, Arrangement(self.schema, entries)), tuple(operands)

    def _array(self, parameter: Parameter, x: Any) -> Any:
        if x.__class__ in ARRAYS or isinstance(x, Tracer):
            return x
        if isinstance(x, (list, tuple, str)) or not is_array(x):
            raise self._wrong(parameter, x, "an array or a number")
        return np.asarray(x)[()] if x.__class__ in _NUMBERS else x

    def _static(self, parameter: Parameter, x: Any) -> Any:
        if isinstance(x, Tracer) or x.__class__ in ARRAYS:
            raise self._wrong(parameter, x, "a static value; declare it as an array to give it a derivative")
        if not is_value_of(parameter.annotation, x):
            raise self._wrong(parameter, x, f"{text_of(parameter.annotation)}, as the prototype says")
        return x

    def _wrong(self, parameter: Parameter, x: Any, wanted: str) -> ArgumentTypeError:
        return ArgumentTypeError(f"{self.qualname}: {parameter.name} is a {type(x).__name__}, it must be {wanted}")

    # ---------------------------------------------------------------- implementations

    def evaluate(self, *args: Any, **kwargs: Any) -> tuple:
        """What the implementation returns for plain arrays, as a tuple, checked; no transform sees it."""
        call, operands = self.arranged(args, kwargs)
        return self.computed(call.arrangement, operands)

    def computed(self, arrangement: Arrangement, xs: Sequence[Any]) -> tuple:
        """The results for plain operands, by the implementation for their device."""
        kernel = self.parts.get("cpu") if xs else None
        for x in xs:
            if x.__class__ is not ndarray:
                kernel = None
        if kernel is None:
            kernel = self._kernel(xs)
            arrays = [v for v in xs if v.__class__ not in SCALARS]
            xs = [fl.array_of(v, arrays) for v in xs]  # an implementation gets arrays, also of shape ()
        return self.ran(kernel, arrangement, xs)

    def ran(self, kernel: Part, arrangement: Arrangement, xs: Sequence[Any]) -> tuple:
        """The results of an implementation, checked; transforms are put aside meanwhile."""
        token = ranges.push(self.qualname, ranges.KERNEL)
        opened = OPEN  # with no trace open, what runs is plain code of arrays
        traces, opened.traces = opened.traces, []
        masks = TAKING.masks
        if masks:
            TAKING.masks = []
        try:
            result = kernel.function(*xs) if self.bare else kernel.function(*arrangement.args(xs))
        finally:
            opened.traces = traces
            if masks:
                TAKING.masks = masks
            if token is not None:
                ranges.pop(token)
        if result.__class__ is ndarray and self.single and result.base is None:
            for x in xs:
                if result is x:
                    break
            else:
                return (result,)  # it owns its memory
        return self._checked(result, kernel, xs)

    def _kernel(self, xs: Sequence[Any]) -> Part:
        """The implementation for the device of highest priority among the operands: cuda before cpu."""
        device = ""
        for x in xs:
            if x.__class__ is ndarray:
                device = device or "cpu"
            elif x.__class__ not in SCALARS:
                name = backend_of(x).name
                found = _DEVICE_OF.get(name)
                if found is None:
                    raise MissingRuleError(
                        f"{self.qualname} has no implementation for arrays of {type(x).__module__}: implementations "
                        f"are for {' and '.join(DEVICES)}, NumPy's and CuPy's arrays"
                    )
                device = "cuda" if "cuda" in (found, device) else found
        device = device or "cpu"
        kernel = self.parts.get(device)
        if kernel is not None and xs:
            return kernel
        if not xs:
            raise MissingRuleError(
                f"{self.qualname} was called without an array, so nothing says on which device it runs; give it one, "
                "or write a plain function: what reads no array needs no operation"
            )
        there = [f"{d} ({self.parts[d].place})" for d in DEVICES if d in self.parts]
        raise MissingRuleError(
            f"{self.qualname} has no {device} implementation, and an operand is on {device}; registered: "
            f"{', '.join(there) or 'none'}. Add one with impl({self.qualname!r}, device_types={device!r})"
        )

    def _checked(self, result: Any, kernel: Part, xs: Sequence[Any]) -> tuple:
        ys = (result,) if self.single else result
        where = f"{self.qualname}: the implementation at {kernel.place}"
        if not isinstance(ys, tuple) or len(ys) != self.schema.outputs:
            raise ArgumentTypeError(
                f"{where} must return a tuple of {self.schema.outputs} arrays, as its prototype says, not "
                f"{f'{len(ys)} of them' if isinstance(ys, tuple) else type(ys).__name__}"
            )
        for k, y in enumerate(ys):
            if y.__class__ is ndarray and y.base is None and not any([y is x for x in (*xs, *ys[:k])]):
                continue  # it owns its memory
            if isinstance(y, (Tracer, list, tuple, str)) or not is_array(y):
                raise ArgumentTypeError(
                    f"{where} returned a {type(y).__name__} as output {k}, not a plain array; an implementation "
                    "gets and returns arrays of its library"
                )
            if y.__class__ not in SCALARS:
                self._check_memory(where, k, y, xs, ys)
        return ys

    def _check_memory(self, where: str, k: int, y: Any, xs: Sequence[Any], ys: tuple) -> None:
        others = [*zip(self._usual_names(xs), xs, strict=True), *((f"output {i}", v) for i, v in enumerate(ys[:k]))]
        for name, x in others:
            if x.__class__ is y.__class__ and x.__class__ not in SCALARS and (y is x or _share(y, x)):
                raise RegistrationError(
                    f"{where} returned output {k} in the memory of {name}; results may not share memory with operands "
                    "or with each other: return a copy"
                )

    def _usual_names(self, xs: Sequence[Any]) -> list[str]:
        if self.bare:
            return [p.name for p in self.schema.parameters]
        return [f"operand {i}" for i in range(len(xs))]

    # ---------------------------------------------------------------- shapes without values

    def abstract(self, *args: Any, **kwargs: Any) -> tuple[Aval, ...]:
        """Shapes and dtypes of the results for arguments that need no values."""
        call, operands = self.arranged(args, kwargs)
        return self.inferred(call.arrangement, [Aval(tuple(shape_of(x)), dtype_of(x)) for x in operands])

    def inferred(self, arrangement: Arrangement, avals: Sequence[Aval]) -> tuple[Aval, ...]:
        """What impl_abstract says about operands of these shapes and dtypes."""
        part = self.parts.get("abstract")
        if part is None:
            raise MissingRuleError(
                f"{self.qualname} has no abstract implementation, which tells shapes and dtypes without values; "
                f"register one with impl_abstract({self.qualname!r})"
            )
        result = part.function(*arrangement.args(avals))
        found = (result,) if self.single else result
        fits = isinstance(found, tuple) and len(found) == self.schema.outputs
        if not fits or not all([_is_aval(a) for a in found]):
            raise ArgumentTypeError(
                f"{self.qualname}: the abstract implementation at {part.place} must return (shape, dtype) for each of "
                f"its {self.schema.outputs} outputs, not {result!r}"
            )
        return tuple([Aval(tuple(shape), np.dtype(dtype)) for shape, dtype in found])


def _is_aval(a: Any) -> bool:
    return isinstance(a, tuple) and len(a) == 2 and isinstance(a[0], (tuple, list))


def _share(y: Any, x: Any) -> bool:
    """Whether two arrays of one library share memory."""
    if y.__class__ in HOST_TYPES:
        return bool(np.shares_memory(y, x))
    be = backend_of(y)
    return not be.is_whole(y) and be.shares_memory(y, x)
