"""Random programs from the op catalogue, as text, and the checks every one of them must pass.

`python -m tests.fuzz SEED` prints the program of a seed and checks it.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import gpujac as gj
from tests import oracles as orc

LARGEST = 1e3  # values beyond this make differences worthless
UNARY = """np.sin({0}) | np.cos({0}) | np.tanh({0}) | np.exp(0.3 * {0}) | np.arctan({0}) | {0}**2 |
    {0} * 1.5 - 2 | 1 / (2 + {0} * {0}) | np.log1p({0} * {0}) | np.sqrt(1.5 + {0} * {0}) | np.abs({0}) |
    -{0} | np.logaddexp({0}, 0.0) | np.arcsinh({0}) | np.clip({0}, -1.0, 1.0) | np.square({0}) |
    np.maximum({0}, 0.3) | np.sinc({0}) | 2.0**{0} | np.cbrt(2 + np.cos({0})) | {0} + {c}""".split("|")
BINARY = """{0} + {1} | {0} - {1} | {0} * {1} | {0} / (1.5 + {1} * {1}) | np.maximum({0}, {1}) |
    np.minimum({0}, {1}) | np.where({0} > {1}, {0} * 2, np.sin({1})) | np.hypot({0}, {1} + 3) |
    np.logaddexp({0}, {1}) | np.arctan2({0}, 3 + {1} * {1}) | (1.2 + {0} * {0}) ** (0.5 * np.tanh({1})) |
    np.where({0} > 0, np.sqrt(np.where({0} > 0, {0}, 1.0)), {1})""".split("|")
REDUCE = """{0}.sum({axis}) | {0}.mean(axis={axis}) | np.max({0}, axis={axis}) | np.min({0}, axis={axis}) |
    np.prod(0.5 + {0} / 3, axis={axis}) | np.linalg.norm({0} + 2, axis={axis}) |
    {0}.sum(axis={axis}, keepdims=True) | {0} - {0}.mean(axis={axis}, keepdims=True) |
    np.var({0}, axis={axis}) | np.cumsum({0}, axis={axis}) | np.flip({0}, axis={axis}) |
    np.roll({0}, 1, axis={axis}) | np.diff({0}, axis={axis}) |
    np.std({0} + 3 * np.arange({0}.size).reshape({0}.shape), axis={axis}) |
    np.repeat({0}, 2, axis={axis}) | np.concatenate([{0}, 2 * {0}], axis={axis}) |
    np.stack([{0}, np.sin({0})], axis={axis}) | np.expand_dims({0}, {axis}) |
    np.take({0}, [0, -1, 0], axis={axis})""".split("|")
SHAPE = """{0}.T | {0}.reshape(-1) | np.ravel({0}.T) | {0}[::-1] | {0}[1:] | {0}[:-1] * {0}[1:] | {0}[-1] |
    {0}[..., None] | {0}[None] | np.tile({0}, 2) | np.pad({0}, 1) | {0}[np.array([0, -1, 0])] |
    {0}[..., ::2] | np.stack([{0}, {0}]) | np.broadcast_to({0}, (2, *{0}.shape)) | {0} * {c} |
    np.moveaxis({0}, 0, -1) | np.swapaxes({0}, 0, -1) | np.atleast_2d({0}) | np.squeeze({0})""".split("|")
MATRIX = """{0} @ {1} | {0} @ {1}.T | {0}.T @ {1} | np.outer({0}, {1}) / 4 | np.dot({0}, {1}) |
    np.tensordot({0}, {1}, axes=1) | np.einsum("...i,...i->...", {0}, {1}) | np.trace({0}) |
    np.diagonal({0}) | np.tril({0}) | np.triu({0}, 1) | np.einsum("ij,kj->ik", {0}, {1}) |
    np.linalg.solve({0} + 5 * np.eye({0}.shape[-1]), {1}) | np.linalg.inv({0} + 5 * np.eye({0}.shape[-1])) |
    np.vecdot({0}, {1}) | np.concatenate([{0}, {1}]) | np.einsum("ij,ij->", {0}, {1}) |
    np.concatenate([{0}, {1}], axis=-1) | {0} * {1} - {1}""".split("|")
WRITES = """{n} = np.zeros_like({0}); {n}[1:] = {0}[:-1] * {0}[1:] |
    {n} = np.zeros_like({0}); {n}[...] = {0}; {n}[0] = {1}[0] |
    {n} = np.ones_like({0}); {n} *= {0}; {n} += 0.5 |
    {n} = np.empty_like({0}); {n}[:] = 2.0; {n}[::2] += {0}[::2] |
    {n} = {0}.copy(); {n}[0] = 1.5; {n}[-1] = {n}[0] * {0}[-1] |
    {n} = np.zeros_like({0}); {n}[np.array([0, -1])] = {0}[np.array([-1, 0])] |
    {n} = {0} * 1.0; {n} -= {1} |
    {n} = np.full_like({0}, 0.7); {n}[{0} > 0] = 2.0 |
    {n} = 0.0; {n} = sum(v * v for v in {0}) |
    {n} = {0} if {0}.sum() > 0 else 2 * {0}""".split("|")
KINDS = {"unary": 4, "binary": 5, "reduce": 3, "shape": 3, "matrix": 3, "writes": 2}
TEMPLATES = dict(zip(KINDS, (UNARY, BINARY, REDUCE, SHAPE, MATRIX, WRITES), strict=True))


class Program:
    """A random function as text, with inputs at which it is smooth enough to check."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self.batchable = True
        shapes = [(), (3,), (2, 3), (3, 3), (4,), (2, 1), (1, 3)]
        count = int(self.rng.integers(1, 4))
        self.inputs = [
            np.asarray(self.rng.uniform(-1.5, 1.5, shapes[self.rng.integers(len(shapes))]))
            for _ in range(count)
        ]
        self.names = [f"x{i}" for i in range(count)]
        self.values: dict[str, Any] = dict(zip(self.names, self.inputs, strict=True))
        self.lines: list[str] = []
        wanted = int(self.rng.integers(3, 13))
        for _ in range(40):
            if len(self.lines) < wanted:
                self._grow()
        self.outputs = self._choose_outputs()
        self.text = "\n".join([f"def f({', '.join(self.names)}):", *("    " + s for s in self.lines),
                               f"    return {self._returned()}"])  # fmt: skip
        self.f = self.function(np)

    def function(self, library: Any) -> Callable:
        """The program as a function, with `library` under the name np."""
        space: dict[str, Any] = {"np": library}
        exec(compile(self.text, f"<fuzz {self.seed}>", "exec"), space)
        return space["f"]

    def _returned(self) -> str:
        return self.outputs[0] if len(self.outputs) == 1 else f"({', '.join(self.outputs)},)"

    def _grow(self) -> None:
        """One more line, kept if NumPy runs it and its values are tame."""
        kind = self.rng.choice(list(KINDS), p=np.array(list(KINDS.values())) / sum(KINDS.values()))
        templates = TEMPLATES[kind]
        template = templates[self.rng.integers(len(templates))].strip()
        operands = [self._operand(kind) for _ in range(2)]
        name = f"v{len(self.lines)}"
        axis = int(self.rng.integers(-1, 2))
        constant = round(float(self.rng.uniform(-2, 2)), 2)
        text = template.format(*operands, n=name, axis=axis, c=constant)
        line = text if kind == "writes" else f"{name} = {text}"
        space = {"np": np, **{k: np.array(v) for k, v in self.values.items()}}
        try:
            with np.errstate(all="raise"):
                exec(line, space)
        except (ValueError, IndexError, TypeError, FloatingPointError, np.linalg.LinAlgError):
            return
        value = space[name]
        if not self._tame(value) or (kind == "reduce" and not np.ndim(self.values[operands[0]])):
            return
        if " if " in line or "] = 2.0" in line.split(";")[-1]:
            self.batchable = False  # Python branches and masks need values
        self.lines.append(line)
        self.values[name] = value

    def _tame(self, value: Any) -> bool:
        x = np.asarray(value)
        return bool(x.dtype == float and 0 < x.size <= 60 and x.ndim <= 4 and np.all(np.abs(x) < LARGEST))

    def _operand(self, kind: str) -> str:
        # an axis of a 0-d array: NumPy lets some reductions have it, we do not
        names = [n for n, v in self.values.items() if np.ndim(v) or kind not in ("reduce", "writes")]
        names = names or list(self.values)
        weights = np.linspace(1, 3, len(names))  # later values more often, so that programs are deep
        return str(self.rng.choice(names, p=weights / weights.sum()))

    def _choose_outputs(self) -> list[str]:
        made = [n for n in self.values if n.startswith("v")] or self.names[:1]
        count = int(self.rng.integers(1, min(3, len(made)) + 1))
        return list(dict.fromkeys([made[-1], *map(str, self.rng.choice(made, count - 1))]))


def smooth(program: Program, ts: tuple) -> np.ndarray | None:
    """The tangent by differences of two widths, None where they disagree: a kink is near."""
    f, xs = program.f, tuple(program.inputs)
    with np.errstate(all="ignore"):
        one = orc.vector(orc.central_difference(f, xs, ts, h=1e-4))
        other = orc.vector(orc.central_difference(f, xs, ts, h=3e-5))
        scale = 1 + np.max(np.abs(one), initial=0.0)
    if not np.all(np.isfinite(one)) or np.max(np.abs(one - other), initial=0.0) > 1e-7 * scale:
        return None
    return one


def _scaled_close(found: Any, wanted: Any, allowed: float, what: str) -> None:
    orc.close(orc.vector(found), orc.vector(wanted), allowed, what)


def check(program: Program) -> bool:
    """Runs every check; False where the program has a kink too near for differences."""
    f, xs = program.f, tuple(program.inputs)
    ts = orc.random_like(program.rng, xs)
    wanted = smooth(program, ts)
    if wanted is None:
        return False
    y, dy = gj.jvp(f, xs, ts)
    _scaled_close(y, f(*xs), 1e-12, "value")
    _scaled_close(dy, wanted, 1e-6, "jvp against differences")
    _scaled_close(gj.linearize(f, *xs)[1](*ts), dy, 1e-11, "linearize against jvp")
    ct = orc.random_like(program.rng, y)
    cts = gj.vjp(f, *xs)[1](ct)
    one, other = orc.inner(cts, ts), orc.inner(ct, dy)
    size = 1 + np.abs(orc.vector(ct)).sum() * (1 + np.abs(orc.vector(dy)).max(initial=0.0))
    assert abs(one - other) <= 1e-10 * size, f"vjp against jvp: {one} and {other}"
    _check_jacobians(program, xs, ts, dy)
    _check_second_order(program, xs, ts, ct)
    if program.batchable:
        _check_batches(program, xs)
    return True


def _check_jacobians(program: Program, xs: tuple, ts: tuple, dy: Any) -> None:
    argnums = tuple(range(len(xs)))
    J = gj.jacrev(program.f, argnums)(*xs)
    for k in (1, 3, None):
        _scaled_close(gj.jacrev(program.f, argnums, chunk_size=k)(*xs), J, 1e-11, f"jacrev, chunk_size={k}")
        found = gj.jacfwd(program.f, argnums, chunk_size=k)(*xs)
        _scaled_close(found, J, 1e-10, f"jacfwd, chunk_size={k}, against jacrev")
    blocks = J if isinstance(dy, tuple) else (J,)
    total = [
        sum(np.tensordot(b, t, np.ndim(t)) for b, t in zip(row, ts, strict=True)) for row in blocks
    ]
    _scaled_close(total, dy, 1e-10, "Jacobian times tangent against jvp")


def _check_second_order(program: Program, xs: tuple, ts: tuple, ct: Any) -> None:
    def pulled(*args: Any) -> tuple:
        return gj.vjp(program.f, *args)[1](ct)

    _, forward = gj.jvp(pulled, xs, ts)
    other = orc.random_like(program.rng, xs)
    reverse = gj.vjp(pulled, *xs)[1](other)
    one, two = orc.inner(forward, other), orc.inner(reverse, ts)
    scale = 1 + abs(one) + np.abs(orc.vector(forward)).sum() + np.abs(orc.vector(reverse)).sum()
    assert abs(one - two) <= 1e-9 * scale, f"second order: {one} and {two}"


def _check_batches(program: Program, xs: tuple) -> None:
    rng = np.random.default_rng(program.seed + 1)
    dims = tuple(None if len(xs) > 1 and rng.random() < 0.3 else int(rng.integers(0, x.ndim + 1)) for x in xs)
    dims = dims if any(d is not None for d in dims) else (0, *dims[1:])
    batch = tuple(
        x if d is None else np.stack([x, x + 0.01, x - 0.02], d) for x, d in zip(xs, dims, strict=True)
    )
    argnums = tuple(range(len(xs)))
    for f in (program.f, gj.jacrev(program.f, argnums), gj.jacfwd(program.f, argnums, chunk_size=2)):
        with np.errstate(all="ignore"):
            found, wanted = gj.vmap(f, dims)(*batch), orc.loop(f, batch, dims, 3)
        _scaled_close(found, wanted, 1e-10, f"vmap with in_dims={dims} against a loop")


def run(seed: int, checked: Callable | None = None) -> bool:
    """Builds and checks one program; an error says its seed and text."""
    program = Program(seed)
    try:
        return (checked or check)(program)
    except Exception as error:
        shapes = ", ".join(f"{n}: {x.shape}" for n, x in zip(program.names, program.inputs, strict=True))
        error.add_note(f"fuzz seed {seed}, inputs {shapes}:\n{program.text}")
        raise


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(Program(int(argument)).text)
        print("checked" if run(int(argument)) else "left out: a kink is too near")
