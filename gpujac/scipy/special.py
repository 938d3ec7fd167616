"""scipy.special with derivatives: the gamma and error functions and their kin, softmax, entropies; the rest is SciPy's.

A function without a rule refuses traced arrays with `DispatchError`. SciPy is imported here, so
this module needs it; `import gpujac` does not.

>>> import gpujac as gj
>>> from gpujac.scipy.special import expit
>>> float(gj.grad(expit)(0.0))
0.25
"""

from typing import Any

import scipy.special as _special

from gpujac.array.namespace import names_of_scipy as _names_of_scipy

globals().update(_names_of_scipy(_special))
__all__ = sorted(_names_of_scipy(_special))


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'gpujac.scipy.special' has no attribute {name!r}")
