"""An object that records what CuPy asks of it: a hook, a method, an operator, its values."""

import numpy as np

from gpujac.array.memory import Flags, strides

_BINARY = "add sub mul truediv floordiv mod pow matmul and or xor".split()
_COMPARISONS = "lt le gt ge eq ne".split()


class AskedError(TypeError):
    """Raised where a value is asked of the object."""


class Duck:
    """An array without data. `log` collects E, R (CuPy's two hooks), M (methods), A (values)."""

    def __init__(self, log, shape=(3, 4), dtype=np.float64):
        self.log, self.shape, self.dtype = log, shape, np.dtype(dtype)
        self.ndim, self.size = len(shape), int(np.prod(shape))
        self.flags = Flags(c_contiguous=True, f_contiguous=self.ndim < 2)
        self.strides = strides(shape, self.dtype.itemsize)

    def noted(self, what):
        self.log.append(what)
        return Duck(self.log, self.shape, self.dtype)

    def __cupy_override_elementwise_kernel__(self, kernel, *args, **kwargs):
        found = self.noted("E")
        return (found,) * kernel.nout if kernel.nout > 1 else found

    def __cupy_override_reduction_kernel__(self, kernel, axis, dtype, out, keepdims):
        return self.noted("R")

    def __array_ufunc__(self, ufunc, method, *args, **kwargs):
        return self.noted("M")

    def __array_function__(self, function, types, args, kwargs):
        return self.noted("M")

    def __array__(self, *args, **kwargs):
        self.log.append("A")
        raise AskedError("np.asarray of the object")

    def __getattr__(self, name):
        if name.startswith("__") or name in ("data", "device", "base", "_shape"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.noted("M")

    @property
    def real(self):
        return self.noted("M")

    imag = T = real

    def __getitem__(self, key):
        return self.noted("M")

    def __setitem__(self, key, value):
        self.log.append("M")

    def __len__(self):
        return self.shape[0]

    def __bool__(self):
        raise TypeError("the truth of the object")

    __int__ = __float__ = __index__ = __bool__
    __hash__ = None


def _operator(self, *others):
    return self.noted("M")


for _name in [*_BINARY, *(f"r{name}" for name in _BINARY), *_COMPARISONS, "neg", "pos", "abs", "invert"]:
    setattr(Duck, f"__{_name}__", _operator)
