"""Modules of the tests loaded a second time, with arrays of the device under the name `np`.

`twin("tests.transforms.test_vjp")` runs the text of that file once more; where it says `import
numpy as np` it gets `LIBRARY`: the names of `gpujac.cupy`, and NumPy's own functions for what tests
need beside them (`np.testing`, random numbers, names that CuPy lacks), which read arrays of the
device and give such arrays back. So `np.array(...)` in such a file makes an array on the device,
`np.ndarray` is the device's type, and one text is proof for both libraries.
"""

import ast
import functools
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optree

from tests import device, strict

ROOT = Path(__file__).parents[1]
TWINS = ("tests.transforms.helpers", "tests.transforms.test_pairs", "tests.control.flows",
         "tests.parity.lanes", "tests.parity.networks")  # fmt: skip


def fetched(tree: Any) -> Any:
    """Arrays of the device in a tree as NumPy's; other things as they are."""
    return optree.tree_map(lambda x: device.host(x) if isinstance(x, device.TYPE) else x, tree)


def put(tree: Any) -> Any:
    """NumPy's arrays in a tree as the device's; other things as they are."""
    return optree.tree_map(lambda x: device.array(x) if type(x) is np.ndarray else x, tree)


def reading(f: Callable) -> Callable:
    """A function of NumPy's that reads arrays of the device and gives such arrays back."""

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        return put(f(*[fetched(x) for x in args], **{k: fetched(v) for k, v in kwargs.items()}))

    return call


class Generator:
    """A random generator of NumPy's whose arrays are the device's."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def __getattr__(self, name: str) -> Any:
        return reading(getattr(self.generator, name))


def _share(x: Any, y: Any) -> bool:
    """Whether two arrays lie in overlapping stretches of the device's memory."""
    if not (isinstance(x, device.TYPE) and isinstance(y, device.TYPE) and x.size and y.size):
        return False
    (a, b), (c, d) = _stretch(x), _stretch(y)
    return a < d and c < b


def _stretch(x: Any) -> tuple[int, int]:
    ends = [(n - 1) * step for n, step in zip(x.shape, x.strides, strict=True)]
    first = x.data.ptr + sum(e for e in ends if e < 0)
    return first, x.data.ptr + sum(e for e in ends if e > 0) + x.itemsize


def _array(values: Any, *args: Any, **kwargs: Any) -> Any:
    """The device's array, but NumPy's for texts, dates and objects, which a device does not hold."""
    try:
        return device.XP.array(values, *args, **kwargs)
    except (RuntimeError, ValueError):
        made = np.array(values, *args, **kwargs)
        if made.dtype.kind in "biufc":
            raise
        return made


class Library(types.ModuleType):
    """NumPy's name in a twin: gpujac.cupy where it has the name, else NumPy's function, reading."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        return reading(found) if isinstance(found, types.FunctionType) else found


def _library() -> Library:
    made = Library("numpy")
    vars(made).update(vars(device.XP))
    vars(made)["ndarray"], vars(made)["array"] = device.TYPE, _array
    vars(made)["may_share_memory"] = vars(made)["shares_memory"] = _share
    asserting = {n: reading(getattr(np.testing, n)) for n in dir(np.testing) if n.startswith("assert_")}
    vars(made)["testing"] = types.SimpleNamespace(**asserting)
    maker = lambda *seed: Generator(np.random.default_rng(*seed))
    vars(made)["random"] = types.SimpleNamespace(default_rng=maker, Generator=Generator)
    return made


def _names(name: str, names: dict) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(names)
    return made


STRICT: Any = strict.LIBRARY
LIBRARY: Any = None if device.MISSING else _library()
CUPY: Any = None if device.MISSING else _names("gpujac.cupy", vars(device.XP))  # nothing of NumPy's added


class _Renamed(ast.NodeTransformer):
    """`import numpy as np` and imports of test modules, as their twins."""

    def __init__(self, library: str) -> None:
        self.library = library

    def visit_Import(self, node: ast.Import) -> ast.AST:
        if [alias.name for alias in node.names] != ["numpy"]:
            return node
        new = ast.parse(f"from tests.twin import {self.library} as {node.names[0].asname}").body[0]
        return ast.copy_location(new, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        names = [(f"{node.module}.{a.name}", a.asname or a.name) for a in node.names]
        if not all(whole in TWINS for whole, _ in names):
            return node
        library = "STRICT" if self.library == "STRICT" else "LIBRARY"
        lines = [f"from tests.twin import twin; {name} = twin({whole!r}, {library!r})" for whole, name in names]
        return [ast.copy_location(n, node) for line in lines for n in ast.parse(line).body]


@functools.lru_cache(None)
def twin(name: str, library: str = "LIBRARY") -> types.ModuleType:
    """The module `name` once more over the device; what it imports of `TWINS` are twins, too.

    `library` is the name in this module of what `np` stands for there.
    """
    path = ROOT / (name.replace(".", "/") + ".py")
    tree = _Renamed(library).visit(ast.parse(path.read_text(encoding="utf-8"), str(path)))
    spec = importlib.util.spec_from_loader(f"{name}:{library}", None, origin=str(path))
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    made.__file__ = str(path)
    sys.modules[made.__name__] = made
    exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), vars(made))
    return made
