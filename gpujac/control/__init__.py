"""Control flow that every transform understands, under vmap too, and functions with rules of their own."""

from gpujac.control.branch import cond, switch
from gpujac.control.checkpoint import checkpoint_name, names
from gpujac.control.custom import once_differentiable
from gpujac.control.loop import fori_loop, while_loop
from gpujac.control.registry import remove_custom_op
from gpujac.control.scan import map, scan
from gpujac.control.slices import dynamic_slice, dynamic_update_slice

__all__ = [
    "checkpoint_name",
    "cond",
    "dynamic_slice",
    "dynamic_update_slice",
    "fori_loop",
    "map",
    "names",
    "once_differentiable",
    "remove_custom_op",
    "scan",
    "switch",
    "while_loop",
]
