"""Function transforms for NumPy and CuPy code: vjp, jvp, vmap and Jacobians without porting.

>>> import numpy as np
>>> import gpujac as gj
>>> gj.jacrev(lambda x: x**2)(np.array([1.0, 2.0]))
array([[2., 0.],
       [0., 4.]])
"""

from gpujac import control, random, settings
from gpujac.adopt import adopt
from gpujac.control.branch import cond, switch
from gpujac.control.checkpoint import checkpoint
from gpujac.control.custom import custom_jvp, custom_vjp
from gpujac.control.loop import fori_loop, while_loop
from gpujac.control.registry import (
    custom_op,
    impl,
    impl_abstract,
    impl_backward,
    impl_jvp,
    impl_save_for_backward,
    impl_vmap,
)
from gpujac.control.scan import scan
from gpujac.core.decompose import decompositions_loaded, register_decomposition
from gpujac.errors import (
    ArgnumsRangeError,
    ArgumentError,
    ArgumentTypeError,
    AxisError,
    BackendError,
    ConcretizationError,
    DerivativeWarning,
    DispatchError,
    DTypeError,
    GpujacError,
    KernelError,
    LeakedTracerError,
    MissingRuleError,
    MutationError,
    NonFiniteError,
    RegistrationError,
    ShapeError,
    StructureError,
)
from gpujac.transforms.hessian import hessian
from gpujac.transforms.jacobian import jacfwd, jacobian, jacrev
from gpujac.transforms.jvp import jvp
from gpujac.transforms.residuals import residuals
from gpujac.transforms.second_order import ggn_vp, hessian_diagonal, hvp, laplacian
from gpujac.transforms.show import show
from gpujac.transforms.transpose import linear_transpose
from gpujac.transforms.values import is_traced, stop_gradient, value
from gpujac.transforms.vjp import grad, grad_and_value, linearize, value_and_grad, vjp
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
    "DerivativeWarning",
    "DispatchError",
    "GpujacError",
    "KernelError",
    "LeakedTracerError",
    "MissingRuleError",
    "MutationError",
    "NonFiniteError",
    "RegistrationError",
    "ShapeError",
    "StructureError",
    "adopt",
    "checkpoint",
    "cond",
    "control",
    "custom_jvp",
    "custom_op",
    "custom_vjp",
    "decompositions_loaded",
    "fori_loop",
    "ggn_vp",
    "grad",
    "grad_and_value",
    "hessian",
    "hessian_diagonal",
    "hvp",
    "impl",
    "impl_abstract",
    "impl_backward",
    "impl_jvp",
    "impl_save_for_backward",
    "impl_vmap",
    "is_traced",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "laplacian",
    "linear_transpose",
    "linearize",
    "random",
    "register_decomposition",
    "scan",
    "settings",
    "residuals",
    "show",
    "stop_gradient",
    "switch",
    "value",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]
