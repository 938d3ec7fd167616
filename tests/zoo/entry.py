"""What the zoo says about one function: how to call it and what may be asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Entry:
    """One scientific function with a seeded sampler of its arguments.

    `argnums` are the arguments that are differentiated. `mappable` is False where Python control
    flow depends on values, which no batch can follow. `kind` is "array", "scalar" (0-d) or "tree".
    `sizes` are the natural sizes of the first argument's entries where they are far from 1.
    """

    f: Callable[..., Any]
    sample: Callable[[np.random.Generator], tuple[Any, ...]]
    argnums: tuple[int, ...] = (0,)
    mappable: bool = True
    kind: str = "array"
    sizes: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """The function's own name."""
        return self.f.__name__

    def arguments(self, seed: int = 0) -> tuple[Any, ...]:
        """Arguments drawn with this seed; the same seed gives the same arguments."""
        return self.sample(np.random.default_rng([seed, len(self.name)]))
