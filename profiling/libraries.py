"""The libraries that are compared, each behind the same few names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

Transform = Callable[..., Callable[..., Any]]


def same(value: Any) -> Any:
    """Return `value` itself."""
    return value


@dataclass(frozen=True)
class Library:
    """A library under measurement.

    `np` is the module that a user of this library calls in place of NumPy: NumPy itself for
    gpujac. `transforms["jvp"](f)(x, t)` returns `(f(x), directional derivative)`. `compile` is
    what its users do before they call a function often (jit), `wait` makes a result final.
    """

    name: str
    np: Any
    transforms: dict[str, Transform]
    array: Callable[[Any], Any] = same
    compile: Transform = same
    wait: Callable[[Any], Any] = same


def gpujac_transforms() -> dict[str, Transform]:
    """Return gpujac's transforms under the names used here."""
    gj = import_module("gpujac")
    return {
        "grad": gj.grad,
        "jvp": lambda f: lambda x, t: gj.jvp(f, (x,), (t,)),
        "vmap": gj.vmap,
        "jacrev": gj.jacrev,
        "jacfwd": gj.jacfwd,
        "hessian": gj.hessian,
    }


def load_gpujac() -> Library:
    """Return gpujac; the functions it gets are plain NumPy code."""
    return Library(name="gpujac", np=np, transforms=gpujac_transforms())


def load_autograd() -> Library:
    """Return HIPS autograd, for the scalar chain only."""
    autograd = import_module("autograd")
    return Library(
        name="autograd",
        np=import_module("autograd.numpy"),
        transforms={
            "grad": autograd.grad,
            "jvp": lambda f: lambda x, t: autograd.make_jvp(f)(x)(t),
        },
    )


def torch_transforms() -> dict[str, Transform]:
    """Return torch.func's transforms under the names used here."""
    func = import_module("torch.func")
    return {
        "grad": func.grad,
        "jvp": lambda f: lambda x, t: func.jvp(f, (x,), (t,)),
        "vmap": func.vmap,
        "jacrev": func.jacrev,
        "jacfwd": func.jacfwd,
        "hessian": func.hessian,
    }


def load_torch() -> Library:
    """Return torch.func, eager, on one thread."""
    torch = import_module("torch")
    torch.set_num_threads(1)
    return Library(
        name="torch",
        np=torch,
        array=lambda value: torch.as_tensor(np.asarray(value)),
        transforms=torch_transforms(),
    )


def jax_transforms(jax: Any) -> dict[str, Transform]:
    """Return JAX's transforms under the names used here."""
    return {
        "grad": jax.grad,
        "jvp": lambda f: lambda x, t: jax.jvp(f, (x,), (t,)),
        "vmap": jax.vmap,
        "jacrev": jax.jacrev,
        "jacfwd": jax.jacfwd,
        "hessian": jax.hessian,
    }


def load_jax() -> Library:
    """Return JAX, every transform compiled with jit, results waited for.

    Dispatch is made synchronous: with one core a second dispatch thread can only cost time.
    """
    jax = import_module("jax")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return Library(
        name="jax",
        np=import_module("jax.numpy"),
        array=import_module("jax.numpy").asarray,
        transforms=jax_transforms(jax),
        compile=jax.jit,
        wait=jax.block_until_ready,
    )


LOADERS: dict[str, Callable[[], Library]] = {
    "gpujac": load_gpujac,
    "autograd": load_autograd,
    "torch": load_torch,
    "jax": load_jax,
}
