"""NumPy with derivatives: `import gpujac.numpy as np` in place of `import numpy as np`.

Every public name of NumPy is here. Plain arrays go to NumPy's own function, untouched; a traced
array among the arguments, also inside a list, goes to the rule of that function, and a function
without a rule refuses it (`DispatchError`). Arrays that `zeros`, `ones`, `empty` and `full` make
inside a transform can receive traced values.

>>> import gpujac as gj
>>> import gpujac.numpy as np
>>> def f(x):
...     y = np.zeros(2)
...     y[0] = x
...     return y + np.array([x, 1.0])
>>> gj.jacrev(f)(np.float64(3.0))
array([2., 0.])
"""

import sys as _sys
from typing import Any

import numpy as _numpy

from gpujac.array.namespace import names_over as _names_over

globals().update(_names_over(_numpy))
_sys.modules.update({f"{__name__}.{name}": globals()[name] for name in ("linalg", "fft")})
__all__ = sorted(_names_over(_numpy))


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'gpujac.numpy' has no attribute {name!r}: NumPy has no such name")
