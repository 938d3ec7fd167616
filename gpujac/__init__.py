"""Function transforms for NumPy and CuPy code: vjp, jvp, vmap and Jacobians without porting.

>>> import numpy as np
>>> import gpujac as gj
>>> gj.jacrev(lambda x: x**2)(np.array([1.0, 2.0]))
array([[2., 0.],
       [0., 4.]])
"""

from gpujac import settings
from gpujac.adopt import adopt
from gpujac.errors import (
    ArgnumsRangeError,
    ArgumentError,
    ArgumentTypeError,
    AxisError,
    BackendError,
    ConcretizationError,
    DispatchError,
    DTypeError,
    GpujacError,
    KernelError,
    LeakedTracerError,
    MissingRuleError,
    MutationError,
    RegistrationError,
    ShapeError,
    StructureError,
)
from gpujac.transforms.jacobian import hessian, jacfwd, jacobian, jacrev
from gpujac.transforms.jvp import jvp
from gpujac.transforms.values import is_traced, stop_gradient, value
from gpujac.transforms.vjp import (
    grad,
    grad_and_value,
    linear_transpose,
    linearize,
    value_and_grad,
    vjp,
)
from gpujac.transforms.vmap import vmap

__version__ = "0.1.0"
__all__ = [
    "ArgnumsRangeError",
    "ArgumentError",
    "ArgumentTypeError",
    "AxisError",
    "BackendError",
    "ConcretizationError",
    "DTypeError",
    "DispatchError",
    "GpujacError",
    "KernelError",
    "LeakedTracerError",
    "MissingRuleError",
    "MutationError",
    "RegistrationError",
    "ShapeError",
    "StructureError",
    "adopt",
    "grad",
    "grad_and_value",
    "hessian",
    "is_traced",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "linear_transpose",
    "linearize",
    "settings",
    "stop_gradient",
    "value",
    "value_and_grad",
    "vjp",
    "vmap",
]
