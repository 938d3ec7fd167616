"""The traced array that user code meets: operators, methods and NumPy's protocols."""

import operator
import warnings
from typing import Any

import numpy as np

from gpujac.array import common as c
from gpujac.array import cupy_protocols, fill, indexing, linalg, memory, order, reduce, shape
from gpujac.array.compose import compress
from gpujac.array.lookup import searchsorted
from gpujac.array.namespace import namespace_over
from gpujac.array.protocols import UFUNCS, add_at, array_function, array_ufunc
from gpujac.array.table import clip, round
from gpujac.array.views import become, check_alive, check_fits, check_storable
from gpujac.backends.choose import HOST_TYPES, backend_of
from gpujac.core.aval import dtype_of, item_bytes, kind, shape_of
from gpujac.core.op import Binary, Unary
from gpujac.core.source import asked_at
from gpujac.core.trace import Tracer, concrete, payload
from gpujac.errors import ConcretizationError, DerivativeWarning
from gpujac.ops import elementwise as ew
from gpujac.trees import mark_leaf

_SEQUENCES = frozenset((list, tuple))
_ITEM = (
    "x.item() of a traced array drops its derivative; keep the array (a 0-d array works where a "
    "number does), or write gpujac.value(x) to say that you mean it"
)


def _operator(op: Any) -> tuple[Any, Any, Any]:
    def forward(self: Any, other: Any) -> Any:
        if other.__class__ is TracedArray:
            if other.owner.level > self.owner.level:
                return other.owner.binary(op, self, other)
        elif other.__class__ in _SEQUENCES:
            other = c.lift(other, self)
        return self.owner.binary(op, self, other)

    def reflected(self: Any, other: Any) -> Any:
        return op(c.lift(other, self) if other.__class__ in _SEQUENCES else other, self)

    def in_place(self: Any, other: Any) -> Any:
        other = c.lift(other, self)
        if self.shape == () and _is_scalar(self):
            return op(self, other)
        check_fits(shape_of(other), self.shape)
        result = op(self, other)
        check_storable(dtype_of(result), self.dtype)
        become(self, c.astype(result, self.dtype))
        return self

    return forward, reflected, in_place


def _is_scalar(x: Any) -> bool:
    """Whether `x` stands for a NumPy or Python number, which `x += 1` replaces and never changes."""
    inner = payload(x)
    return type(inner) in HOST_TYPES and (type(inner) is not np.ndarray or inner.ndim > 0)


def _product() -> tuple[Any, Any, Any]:
    def forward(self: Any, other: Any) -> Any:
        return linalg.matmul(self, other)

    def reflected(self: Any, other: Any) -> Any:
        return linalg.matmul(other, self)

    def in_place(self: Any, other: Any) -> Any:
        result = linalg.matmul(self, other)
        check_fits(shape_of(result), self.shape)
        check_storable(dtype_of(result), self.dtype)
        become(self, c.astype(result, self.dtype))
        return self

    return forward, reflected, in_place


_equal, _not_equal = _operator(ew.equal)[0], _operator(ew.not_equal)[0]


class TracedArray(Tracer):
    """An array that a transform watches. Behaves as the array it stands for.

    Python may branch on it (`if x > 0`, `while`, `int(x)`) except under vmap; `float(x)` and
    `np.asarray(x)` raise, since the derivative would be lost without a word.
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # equality is elementwise, as for ndarray

    __add__, __radd__, __iadd__ = _operator(ew.add)
    __sub__, __rsub__, __isub__ = _operator(ew.subtract)
    __mul__, __rmul__, __imul__ = _operator(ew.multiply)
    __truediv__, __rtruediv__, __itruediv__ = _operator(ew.divide)
    __floordiv__, __rfloordiv__, __ifloordiv__ = _operator(ew.floor_divide)
    __mod__, __rmod__, __imod__ = _operator(ew.remainder)
    __pow__, __rpow__, __ipow__ = _operator(ew.power)
    __and__, __rand__, __iand__ = _operator(ew.bitwise_and)
    __or__, __ror__, __ior__ = _operator(ew.bitwise_or)
    __xor__, __rxor__, __ixor__ = _operator(ew.bitwise_xor)
    __lshift__, __rlshift__, __ilshift__ = _operator(ew.left_shift)
    __rshift__, __rrshift__, __irshift__ = _operator(ew.right_shift)
    __matmul__, __rmatmul__, __imatmul__ = _product()

    def __divmod__(self, other: Any) -> tuple:
        return self // other, self % other

    def __neg__(self) -> Any:
        return ew.negative(self)

    def __pos__(self) -> Any:
        return ew.positive(self)

    def __invert__(self) -> Any:
        return ew.invert(self)

    def __abs__(self) -> Any:
        return reduce.absolute(self)

    def __eq__(self, other: Any) -> Any:
        return False if other is None else _equal(self, other)

    def __ne__(self, other: Any) -> Any:
        return True if other is None else _not_equal(self, other)

    __lt__ = _operator(ew.less)[0]
    __le__ = _operator(ew.less_equal)[0]
    __gt__ = _operator(ew.greater)[0]
    __ge__ = _operator(ew.greater_equal)[0]

    # Values: what Python may read, and what would lose the derivative.
    def __bool__(self) -> bool:
        return bool(concrete(self))

    def __int__(self) -> int:
        return int(concrete(self))

    def __index__(self) -> int:
        return operator.index(concrete(self))

    def __float__(self) -> float:
        return float(self._settled("float()"))

    def __complex__(self) -> complex:
        return complex(self._settled("complex()"))

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        plain = self._settled("np.asarray, np.array([...]) or storing into a plain NumPy array")
        return np.array(plain, dtype, copy=True if copy is None else copy)

    def _settled(self, what: str) -> Any:
        """The plain value if no transform watches it (an array of constants), else an error."""
        value: Any = self
        while isinstance(value, Tracer):
            if not value.owner.alive:
                raise value.owner.leaked(value)
            if value.aux is not None:
                raise self._lost(what)
            value = value.value
        return value

    def _lost(self, what: str) -> ConcretizationError:
        if self.owner.transform == "vmap":
            return ConcretizationError(
                f"{what} of a mapped array of shape {self.shape} (vmap of {self.owner.origin}): there "
                "is one value per lane. Use np functions instead of math, "
                "gpujac.numpy.take(table, i, axis=0) instead of table[i] for a plain table, "
                "gpujac.cond or np.where(condition, a, b) instead of a branch, gpujac.while_loop instead of a "
                'loop, or vmap(..., method="loop"), which runs the function once per lane' + asked_at()
            )
        return ConcretizationError(
            f"{what} of a traced array of shape {self.shape} ({self.owner.transform} of "
            f"{self.owner.origin}) would lose its derivative without a word. Use np functions "
            "instead of math, np.stack([...]) instead of np.array([...]), np.zeros_like(x) as the "
            "buffer to write into (or import gpujac.numpy as np, whose array, asarray and zeros can "
            "hold traced values), and gpujac.value(x) to drop the derivative on purpose" + asked_at()
        )

    def item(self, *args: int) -> Any:
        """The value as a Python number; drops the derivative, with one warning per line."""
        plain = c.on_host(concrete(self)).item(*args)
        if kind(self.dtype) in "fc" and _watched(self):
            warnings.warn(_ITEM, DerivativeWarning, stacklevel=2)
        return plain

    def tolist(self) -> Any:
        """The entries as nested lists of traced scalars."""
        return [x.tolist() for x in self] if self.shape else self

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a traced array without axes")
        return self.shape[0]

    def __iter__(self) -> Any:
        if not self.shape:
            raise TypeError("iteration over a traced array without axes")
        return (self[i] for i in range(self.shape[0]))

    def __contains__(self, x: Any) -> bool:
        return bool(concrete(reduce.any(ew.equal(self, x))))

    def __repr__(self) -> str:
        return self.owner.describe(self)

    def __format__(self, spec: str) -> str:
        return format(concrete(self), spec) if spec else repr(self)

    def __reduce__(self) -> Any:
        raise self._lost("pickling or saving")

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __copy__(self) -> Any:
        return self.copy()

    def detached(self) -> Any:
        """A new traced array with this payload that shares no memory in NumPy's eyes."""
        y = TracedArray(self.owner, self.value, self.aux, self.shape, self.dtype)
        y.code, y.at = self.code, self.at  # it is the same value
        return y

    # Reading and writing.
    def __getitem__(self, key: Any) -> Any:
        return indexing.getitem(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        indexing.setitem(self, key, value)

    def fill(self, value: Any) -> None:
        """Set every entry."""
        indexing.setitem(self, ..., value)

    # Protocols.
    __array_priority__ = 1000.0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__" and not kwargs:
            f = UFUNCS.get(ufunc)
            if f.__class__ is Unary:
                return self.owner.unary(f, self)
            if f.__class__ is Binary:
                x, y = inputs
                if x.__class__ is TracedArray:
                    if y.__class__ is TracedArray:
                        return (y if y.owner.level > x.owner.level else x).owner.binary(f, x, y)
                    if y.__class__ not in _SEQUENCES:
                        return x.owner.binary(f, x, y)
                elif x.__class__ not in _SEQUENCES:
                    return y.owner.binary(f, x, y)
            if f is not None:
                for x in inputs:
                    if x.__class__ in _SEQUENCES:
                        inputs = c.together(*inputs)
                        break
                return f(*inputs)
        return array_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: tuple, kwargs: dict) -> Any:
        return array_function(function, args, kwargs)

    def __cupy_override_elementwise_kernel__(self, kernel: Any, *args: Any, **kwargs: Any) -> Any:
        return cupy_protocols.elementwise(kernel, args, kwargs)

    def __cupy_override_reduction_kernel__(self, kernel: Any, axis: Any, dtype: Any, out: Any,
                                           keepdims: bool) -> Any:  # fmt: skip
        return cupy_protocols.reduction(kernel, self, axis, dtype, out, keepdims)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return namespace_over(backend_of(payload(self)).xp)

    # Attributes.
    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        n = 1
        for m in self.shape:
            n *= m
        return n

    @property
    def itemsize(self) -> int:
        return item_bytes(self.dtype)

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def device(self) -> Any:
        return getattr(payload(self), "device", "cpu")

    @property
    def flags(self) -> Any:
        return memory.Flags(c_contiguous=True, f_contiguous=self.ndim < 2)

    @property
    def strides(self) -> tuple[int, ...]:
        return memory.strides(self.shape, self.itemsize)

    @property
    def T(self) -> Any:
        return shape.transpose(self)

    @property
    def mT(self) -> Any:
        return shape.matrix_transpose(self)

    @property
    def real(self) -> Any:
        return reduce.real(self)

    @property
    def imag(self) -> Any:
        return reduce.imag(self)

    @property
    def flat(self) -> Any:
        return iter(shape.ravel(self))

    # Methods, positional signatures as NumPy's and CuPy's.
    def reshape(self, *new: Any, order: str = "C", copy: Any = None) -> Any:
        """The entries under another shape."""
        return shape.reshape(self, new[0] if len(new) == 1 else new, order, copy=copy)

    def transpose(self, *axes: Any) -> Any:
        """The axes reordered."""
        if not axes or axes == (None,):
            return shape.transpose(self)
        return shape.transpose(self, axes[0] if isinstance(axes[0], (tuple, list)) else axes)

    def flatten(self, order: str = "C") -> Any:
        """A copy as one axis."""
        return shape.ravel(self, order).detached()

    def astype(self, dtype: Any, order: str = "K", casting: Any = "unsafe", subok: Any = True,
               copy: bool = True, *, device: Any = None) -> Any:  # fmt: skip
        """The values in another dtype; the array itself with copy=False where that changes nothing."""
        check_alive(self)
        c.check_casting("astype", self.dtype, dtype, casting or "unsafe")  # None is CuPy's default
        y = c.astype(self, dtype)
        return y.detached() if y is self and copy else y

    def copy(self, order: str = "C") -> Any:
        """A copy that later writes do not touch."""
        check_alive(self)
        y = self.detached()
        y.code = None
        y.mark()
        return y

    def view(self, *args: Any) -> Any:
        """A traced array that shares this one's memory in NumPy's eyes."""
        if args:
            raise self._lost("view() as another type")
        return self[...]

    def std(self, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0,
            keepdims: bool = False, **kwargs: Any) -> Any:  # fmt: skip
        """Standard deviation."""
        return reduce.std(self, axis, dtype, out, ddof, keepdims, **kwargs)

    def take(self, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Any:
        """Entries at integer positions."""
        return indexing.take(self, indices, axis, out, mode)

    def argsort(self, axis: Any = -1, *args: Any, **kwargs: Any) -> Any:
        """Positions that sort the entries along `axis`."""
        return order.argsort(self, axis, *args, **kwargs)

    def sort(self, axis: Any = -1, *args: Any, **kwargs: Any) -> None:
        """Sort the entries along `axis` in place."""
        become(self, order.sort(self, axis, *args, **kwargs))

    def argmax(self, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: Any = False) -> Any:
        """Position of the first largest entry."""
        return c.cast_if(reduce.argmax(self, axis, out, keepdims=keepdims), dtype)

    def argmin(self, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: Any = False) -> Any:
        """Position of the first smallest entry."""
        return c.cast_if(reduce.argmin(self, axis, out, keepdims=keepdims), dtype)

    def partition(self, kth: Any, axis: Any = -1, *args: Any, **kwargs: Any) -> None:
        """Sort so that entry `kth` along `axis` is in its place, in place."""
        become(self, order.partition(self, kth, axis, *args, **kwargs))

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """The values on the host, if no transform follows them."""
        return self._settled("get()").get(*args, **kwargs)

    def scatter_add(self, slices: Any, value: Any) -> None:
        """Add at an index, every repetition counting: `cupyx.scatter_add`."""
        add_at(np.add, self, slices, value)

    def _scatter_op(self, slices: Any, value: Any, how: str) -> None:
        """CuPy's `ufunc.at`."""
        add_at(memory.scattering(how), self, slices, value)

    def compress(self, condition: Any, axis: Any = None, out: Any = None) -> Any:
        """Entries where a plain condition holds."""
        return compress(condition, self, axis, out)

    def __round__(self, digits: int = 0) -> Any:
        return round(self, digits)

    def clip(self, min: Any = None, max: Any = None, out: Any = None, **kwargs: Any) -> Any:
        """Values limited to an interval."""
        c.refuse("clip", **kwargs)
        return clip(self, min, max, out)


def _watched(x: Any) -> bool:
    """Whether some transform follows the value of `x`."""
    while isinstance(x, Tracer):
        if x.aux is not None:
            return True
        x = x.value
    return False


def _method(function: Any) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    method.__name__ = function.__name__
    method.__doc__ = function.__doc__
    return method


for _function in (
    reduce.sum, reduce.mean, reduce.var, reduce.max, reduce.min, reduce.prod, reduce.any,
    reduce.all, reduce.cumsum, reduce.cumprod, reduce.conj, reduce.ptp,
    shape.ravel, shape.squeeze, shape.swapaxes, fill.diagonal, fill.trace, fill.repeat,
    linalg.dot, round, reduce.nonzero, searchsorted, order.argpartition, order.put,
):  # fmt: skip
    setattr(TracedArray, _function.__name__, _method(_function))
TracedArray.conjugate = TracedArray.conj  # type: ignore[attr-defined]  # set by the loop above
mark_leaf(TracedArray)
