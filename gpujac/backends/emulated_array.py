"""Real cupy.ndarray objects over host memory, whose kernels NumPy evaluates.

CuPy's compiled code does what it does on a GPU machine (operators, ufuncs and their argument
rules, views, slices, reshapes) up to the launch of a kernel; there its own override hooks hand the
call to this class. Methods that launch from compiled code are overridden one by one.
"""

import inspect
from functools import lru_cache
from typing import Any

import numpy as np

from gpujac.backends import counts
from gpujac.backends.cupy import cupy
from gpujac.errors import BackendError

_HOOK = "__cupy_override_elementwise_kernel__"
_BASIC = (int, np.integer, slice, type(None), type(Ellipsis))
_WAITING = frozenset(("nonzero", "flatnonzero", "argwhere", "unique", "compress", "extract", "bincount"))


class _Memory(cupy.cuda.memory.UnownedMemory):
    """Host memory that CuPy takes for a block on a device."""

    raw: np.ndarray  # its bytes

    @classmethod
    def of(cls, x: np.ndarray, number: int) -> "_Memory":
        """The block that holds `x`."""
        root, step = x, x.base
        while step is not None:  # as_strided puts a holder between, which has a base too
            root = step if isinstance(step, np.ndarray) else root
            step = getattr(step, "base", None)
        order = sorted(range(root.ndim), key=lambda axis: -root.strides[axis])
        raw = root.transpose(order).reshape(-1).view(np.uint8) if root.size else np.empty(0, np.uint8)
        made = cls(raw.ctypes.data, max(raw.nbytes, 1), raw, number)
        made.raw = raw
        return made


class Device:
    """Stands for a device where asking CuPy for one would need a driver."""

    __slots__ = ("id",)

    def __init__(self, number: int) -> None:
        self.id = number

    def __repr__(self) -> str:
        return f"<emulated device {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash((Device, self.id))


CURRENT = [0]  # the device that new arrays are made on


class EmulatedArray(cupy.ndarray):
    """A cupy.ndarray over host memory."""

    gpujac_backend = "emulated"  # which backend owns it: read by backends/choose.py
    is_view = False

    def __array_finalize__(self, obj: Any) -> None:
        self.is_view = obj is not None

    @property
    def base(self) -> Any:
        """The memory that a view looks into, None for an array that owns its own."""
        return self.data.mem if self.is_view else None

    @property
    def device(self) -> Device:
        """The emulated device that holds the array."""
        return Device(self.data.device_id)

    @property
    def real(self) -> Any:
        """The real part, a view."""
        return self if self.dtype.kind != "c" else wrap(host(self).real)

    @property
    def imag(self) -> Any:
        """The imaginary part, a view where there is one."""
        return run("imag", np.imag, (self,), {})

    # What CuPy's ufuncs and reductions ask before they launch.
    def __cupy_override_elementwise_kernel__(self, kernel: Any, *args: Any, **kwargs: Any) -> Any:
        for x in args:  # on a device only foreign objects have this hook
            if not isinstance(x, EmulatedArray) and getattr(type(x), _HOOK, None):
                return getattr(x, _HOOK)(kernel, *args, **kwargs)
        return elementwise(kernel, args, kwargs)

    def __cupy_override_reduction_kernel__(self, kernel: Any, axis: Any, dtype: Any, out: Any,
                                           keepdims: Any) -> Any:  # fmt: skip
        name = kernel.name.removeprefix("cupy_")
        f = getattr(np, name, None)
        if f is None:
            raise BackendError(f"the emulated backend has no reduction {kernel.name!r}; run it on a GPU")
        options = {} if dtype is None else {"dtype": dtype}
        return run(name, f, (self,), {"axis": axis, "keepdims": keepdims, "out": out, **options})

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        for kind in types:
            if not issubclass(kind, cupy.ndarray) and getattr(kind, "__array_function__", None):
                return NotImplemented
        return numpy_call(function, args, kwargs)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = (EmulatedArray, np.ndarray, np.generic, list, int, float, complex)
        if method == "at" and all([isinstance(x, plain) for x in inputs]):
            return run(f"{ufunc.__name__}.at", ufunc.at, inputs, {}, plain=True)
        if ufunc is np.matmul and method == "__call__" and all([isinstance(x, EmulatedArray) for x in inputs]):
            return product(inputs[0], inputs[1], kwargs)  # CuPy's own loads cuBLAS
        return super().__array_ufunc__(ufunc, method, *inputs, **kwargs)

    def __matmul__(self, other: Any) -> Any:
        if not isinstance(other, EmulatedArray):
            if getattr(other, "__array_ufunc__", None) and not isinstance(other, np.ndarray):
                return NotImplemented
            raise TypeError(f"Unsupported type {type(other)}")
        return product(self, other, {})

    def __rmatmul__(self, other: Any) -> Any:
        return NotImplemented

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if all(isinstance(k, _BASIC) and not isinstance(k, bool) for k in parts):
            return super().__getitem__(key)
        masks = [k for k in parts if isinstance(k, bool) or getattr(k, "dtype", None) == np.dtype(bool)]
        if masks:  # the shape of the result depends on values
            counts.synchronized()
        index = _index(key)
        return run("getitem", lambda x: np.asarray(x[index]), (self,), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        target = host(self)
        if not isinstance(value, EmulatedArray):
            if isinstance(value, np.ndarray) and value.ndim and key not in (Ellipsis, slice(None)):
                raise TypeError(f"Unsupported type {type(value)}")
            new = np.asarray(value)
        else:
            new = host(value)
        with np.errstate(all="ignore"):
            target[_index(key)] = new
        counts.launched("setitem", (new, new))

    def astype(self, dtype: Any, order: Any = "K", casting: Any = None, subok: Any = None,
               copy: bool = True) -> Any:  # fmt: skip
        """A copy in another dtype."""
        dtype = np.dtype(dtype)
        if not copy and dtype == self.dtype:
            return self

        def cast(x: np.ndarray) -> np.ndarray:
            return x.astype(dtype, order)  # warns where an imaginary part is lost, as CuPy does

        return run("astype", cast, (self,), {})

    def argmax(self, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        """Position of the first largest entry."""
        return run("argmax", np.argmax, (self, axis, out), {"keepdims": keepdims})

    def argmin(self, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        """Position of the first smallest entry."""
        return run("argmin", np.argmin, (self, axis, out), {"keepdims": keepdims})

    def take(self, indices: Any, axis: Any = None, out: Any = None) -> Any:
        """Entries at integer positions along an axis, out-of-range ones wrapped as CuPy does."""
        index = _index(indices)
        return run("take", lambda x: np.take(x, index, axis, mode="wrap"), (self,), {})

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        """A NumPy copy: a wait for the device."""
        counts.synchronized()
        return np.array(host(self), order="C") if out is None else np.copyto(out, host(self))

    def set(self, arr: Any, stream: Any = None) -> None:
        """Overwrite with a NumPy array of the same shape."""
        counts.uploaded()
        host(self)[...] = arr

    def item(self, *args: Any) -> Any:
        """One entry as a Python number: a wait for the device."""
        counts.synchronized()
        return host(self).item(*args)

    def tolist(self) -> Any:
        """The entries as Python lists: a wait for the device."""
        return self.get().tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        """The entries as bytes: a wait for the device."""
        return self.get().tobytes(order)

    def __bool__(self) -> bool:
        counts.synchronized()
        return bool(host(self))

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        counts.synchronized()
        return host(self).__index__()

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get() if self.ndim else self.item(), spec)

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __reduce__(self) -> tuple:
        return array, (self.get(),)


# Methods that launch from compiled code: NumPy's method on the host view, CuPy's signature.
_METHODS = """all any argpartition argsort choose clip compress conj conjugate copy cumprod cumsum
dot fill flatten max mean min nonzero partition prod ptp put ravel repeat reshape round searchsorted
sort std sum trace var""".split()


@lru_cache(None)
def _signature(name: str) -> inspect.Signature | None:
    """The signature of a method of CuPy's, which compiled code gives in its docstring only."""
    first = (getattr(cupy.ndarray, name).__doc__ or "").split("\n")[0].split(") ->")[0]
    if not first.startswith(f"_ndarray_base.{name}(") or "*" in first:
        return None
    names = [part.split("=")[0].split()[-1] for part in first.rstrip(")").split("(", 1)[1].split(", ")]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(n, kind, default=None) for n in names])


def _method(name: str) -> Any:
    own = getattr(np, name) if name == "ptp" else getattr(np.ndarray, name)

    def method(self: EmulatedArray, *args: Any, **kwargs: Any) -> Any:
        signature = _signature(name)
        if signature is not None:
            signature.bind(self, *args, **kwargs)  # raises TypeError where CuPy would
        return run(name, own, (self, *args), kwargs)

    method.__name__, method.__doc__ = name, f"CuPy's `{name}`, evaluated by NumPy."
    return method


for _name in _METHODS:
    setattr(EmulatedArray, _name, _method(_name))


def wrap(x: np.ndarray) -> EmulatedArray:
    """An emulated array over the memory of a NumPy array, strides included."""
    if x.dtype.kind not in "biufc":
        raise BackendError(f"CuPy has no arrays of dtype {x.dtype}; use a numeric or boolean dtype")
    if x.base is None:
        counts.allocated(x)
    memory = _Memory.of(x, CURRENT[0])
    pointer = cupy.cuda.memory.MemoryPointer(memory, x.ctypes.data - memory.ptr if x.size else 0)
    made = EmulatedArray(x.shape, x.dtype, pointer, x.strides)
    made.is_view = x.base is not None
    return made


def host(x: Any) -> np.ndarray:
    """The NumPy view of an emulated array: the same memory, the same strides."""
    if x.size == 0:
        return np.empty(x.shape, x.dtype)
    memory = x.data.mem
    return np.ndarray(x.shape, x.dtype, memory.raw, x.data.ptr - memory.ptr, x.strides)


def array(values: Any, dtype: Any = None) -> EmulatedArray:
    """A new emulated array with the values of a NumPy array, list or number (one upload)."""
    made = np.array(host(values) if isinstance(values, EmulatedArray) else values, dtype)
    counts.uploaded()
    return wrap(made)


def _index(key: Any) -> Any:
    """An index with emulated arrays as NumPy ones; NumPy arrays and lists are uploaded by CuPy."""
    if isinstance(key, tuple):
        return tuple([_index(k) for k in key])
    if isinstance(key, EmulatedArray):
        return host(key)
    if isinstance(key, (list, np.ndarray)):
        counts.uploaded()
    return key


def product(x: Any, y: Any, options: dict[str, Any]) -> Any:
    """A matrix product; above two axes CuPy copies operands into C order and, where leading axes
    broadcast, writes three arrays of pointers."""
    times = 1
    if max(x.ndim, y.ndim) > 2:
        times += sum([not z.flags.c_contiguous for z in (x, y)])
        times += 3 if x.shape[:-2] != y.shape[:-2] else 0
    return run("matmul", np.matmul, (x, y), options, times=times)


def lowered(x: Any, seen: dict[int, Any], plain: bool = False) -> Any:
    """`x` as NumPy takes it; `seen` learns which host array belongs to which emulated one."""
    if isinstance(x, EmulatedArray):
        low = host(x)
        seen[id(low)] = (low, x)
        return low
    if isinstance(x, (list, tuple)) and type(x) in (list, tuple):
        return type(x)([lowered(v, seen, plain) for v in x])
    if isinstance(x, np.ndarray):
        if not plain:
            raise TypeError(f"Unsupported type {type(x)}")  # CuPy's words
        counts.uploaded()
    elif getattr(x, "__array_ufunc__", None) and not isinstance(x, np.generic):
        np.asarray(x)  # raises what the object has to say
        raise TypeError(f"Unsupported type {type(x)}")
    return x


def lifted(result: Any, seen: dict[int, Any]) -> Any:
    """A result of NumPy's as CuPy gives it: arrays, also where NumPy has scalars."""
    if isinstance(result, np.ndarray):
        found = seen.get(id(result))
        return found[1] if found is not None else wrap(result)
    if isinstance(result, (np.generic, bool)):
        return wrap(np.array(result))
    if isinstance(result, tuple) and getattr(result, "_fields", None):
        return type(result)(*[lifted(r, seen) for r in result])
    if isinstance(result, (list, tuple)):
        return type(result)([lifted(r, seen) for r in result])
    return result


def run(name: str, f: Any, args: tuple, kwargs: dict, plain: bool = False, times: int = 1) -> Any:
    """Evaluate NumPy's `f` on emulated arrays and count it; views cost nothing."""
    seen: dict[int, Any] = {}
    ins = [lowered(x, seen, plain) for x in args]
    options = {k: lowered(v, seen, plain) for k, v in kwargs.items()}
    with np.errstate(all="ignore"):  # a device does not warn
        result = f(*ins, **options)
    if name in _WAITING:
        counts.synchronized()
    arrays = [low for low, _ in seen.values()]
    outs = [r for r in (result if isinstance(result, (list, tuple)) else [result])
            if isinstance(r, (np.ndarray, np.generic))]  # fmt: skip
    viewed = outs and all([any([r is a or np.may_share_memory(r, a) for a in arrays]) for r in outs])
    if not viewed or name in ("sort", "partition") or any([o is options.get("out") for o in outs]):
        counts.launched(name, [*arrays, *outs], times)
    return lifted(result, seen)


def elementwise(kernel: Any, args: tuple, kwargs: dict) -> Any:
    """One of CuPy's ufuncs on emulated arrays."""
    name = kernel.name.removeprefix("cupy_")
    f = _ufuncs().get(id(kernel)) or getattr(np, name, None)
    if f is None or not isinstance(kernel, cupy.ufunc):
        raise BackendError(
            f"the emulated backend cannot run CuPy's kernel {kernel.name!r}: it has no CPU version; "
            "write it with array functions, or run it on a GPU"
        )
    unknown = [k for k, v in kwargs.items() if k not in ("out", "dtype", "casting") and v is not None]
    if unknown:
        raise TypeError(f"Wrong arguments {unknown}: CuPy's ufuncs take out=, dtype= and casting=")
    ins, outs = args[: kernel.nin], args[kernel.nin :]
    options = {k: v for k, v in kwargs.items() if v is not None and k in ("dtype", "casting")}
    out = outs[0] if outs else kwargs.get("out")
    if isinstance(out, tuple):
        (out,) = out
    _check_loop(kernel, ins, f, options)
    if out is None:
        return run(name, f, ins, options)
    result = run(name, f, ins, options)
    low = host(out)
    if not np.can_cast(result.dtype, low.dtype, kwargs.get("casting") or "same_kind"):
        raise TypeError(f"output (typecode '{result.dtype.char}') could not be coerced to provided output "
                        f"parameter (typecode '{low.dtype.char}')")  # fmt: skip
    low[...] = host(result)
    return out


def _check_loop(kernel: Any, ins: tuple, f: Any, options: dict) -> None:
    """Raise TypeError where CuPy has no version of the ufunc for these dtypes."""
    dtypes = [x.dtype for x in ins if isinstance(x, EmulatedArray)]
    if not dtypes or options:
        return
    for loop in kernel.types:
        letters = loop.split("->")[0]
        if all([np.can_cast(d, np.dtype(c)) for d in dtypes for c in letters[:1]]):
            return
    raise TypeError(f"Wrong type ({', '.join(str(d) for d in dtypes)}) of arguments for {kernel.name}")


@lru_cache(None)
def _ufuncs() -> dict[int, Any]:
    """NumPy's function for each ufunc of CuPy's, by identity."""
    found = {}
    for name in dir(cupy):
        ours = getattr(cupy, name)
        theirs = getattr(np, name, None)
        if isinstance(ours, cupy.ufunc) and theirs is not None:
            found[id(ours)] = theirs
    return found


def numpy_call(function: Any, args: tuple, kwargs: dict) -> Any:
    """NumPy's function on emulated arrays through NEP 18: only what CuPy has under that name."""
    module, name = function.__module__, function.__name__
    place = cupy
    for part in module.split(".")[1:]:
        place = getattr(place, part, None)
    if getattr(place, name, None) is None:
        return NotImplemented
    return run(name, function, args, kwargs)
