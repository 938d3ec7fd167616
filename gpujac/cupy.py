"""CuPy with derivatives: `import gpujac.cupy as cp` in place of `import cupy as cp`.

Every public name of CuPy is here. Plain arrays go to CuPy's own function, untouched; a traced
array among the arguments, also inside a list, goes to the rule of that function, and a function
without a rule refuses it (`DispatchError`). So functions that CuPy checks in compiled code before
they could ask a traced array (`cp.concatenate`, `cp.matmul`, `cp.linalg.*`) are differentiated too.
Arrays that `zeros`, `ones`, `empty` and `full` make inside a transform can receive traced values.

With `GPUJAC_BACKEND=emulated` the names stand on emulated arrays, which need no GPU; they still
need CuPy itself installed.
"""

import sys as _sys
from typing import Any

from gpujac.array.namespace import array_module as _array_module
from gpujac.array.namespace import names_over as _names_over
from gpujac.backends import choose as _choose
from gpujac.errors import BackendError as _BackendError

try:
    _device = _choose.device()
except _BackendError as _error:
    raise ImportError(
        f"gpujac.cupy needs CuPy: {_error}. Install the wheel for your CUDA version, `pip install "
        "'cupy-cuda13x>=14'` or `pip install 'cupy-cuda12x>=14'`, or use gpujac.numpy on the CPU"
    ) from _error

globals().update(_names_over(_device.xp))
_sys.modules.update({f"{__name__}.{name}": globals()[name] for name in ("linalg", "fft", "random")})


get_array_module = _array_module(_device.xp, _sys.modules[__name__])
__all__ = sorted(_names_over(_device.xp))


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'gpujac.cupy' has no attribute {name!r}: CuPy has no such name")
