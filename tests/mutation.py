"""Rule mutation: breaks every derivative and batching rule in many ways; the tests must notice.

`python -m tests.mutation [NAME ...]` mutates the rules (of the named ops), runs the checks of
`tests/ops` on each mutant inside the process, and exits with 1 if one survives. Files are never
edited: a mutant is a function with other code, put back afterwards.
"""

import ast
import importlib
import inspect
import multiprocessing
import pkgutil
import signal
import sys
import textwrap
import time
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gpujac import ops
from gpujac.core.op import POINTWISE, STRUCTURAL, General, Joint, Linear, Mask, Op
from gpujac.ops import (
    agree,
    batching,
    contract,
    determinant,
    elementwise,
    factor,
    linalg,
    special,
    structure,
    window,
)
from tests.ops import catalogue, test_dtypes, test_kinks
from tests.ops.checks import CHECKS, Run

MODULES = tuple(importlib.import_module(f"gpujac.ops.{m.name}") for m in pkgutil.iter_modules(ops.__path__))
RULES = """jvp transposed transpose batch parts restricted keys ranks depends widen add_up spelled
    _batch_with_lead changed""".split()  # fmt: skip
# Functions that several rules share, and the ops whose checks must notice.
SHARED = (
    (agree, "agreement coefficient _fit times plus scale conjugated",
     "add multiply divide where power np.constants sum log maximum np.clip np.abs"),
    (batching, "as_shape reorder move_axis both_to_front shift_index stretch aligned",
     "fused take scatter_add last_writer solve contract concat sum permute np.take_along_axis"),
    (elementwise, "_power_of_base _power_of_exponent", "power"),
    (elementwise, "_sinc_slope", "sinc"),
    (elementwise, "_not_zero", "hypot"),
    (elementwise, "_share", "maximum minimum fmax fmin"),
    (structure, "spread_steps", "add multiply where np.broadcast_to"),
    (linalg, "adjoint", "solve inv"),
    (special, "_ratio", "xlogy xlog1py rel_entr kl_div"),
    (determinant, "_trace_of_product", "det adjugate slogdet"),
    (factor, "_hermitian _off_diagonal _quotient _packed unpacked _row _column", "eigh eigvalsh cholesky svd svdvals"),
    (factor, "_outside", "svd"),
    (window, "gathered _gathered _key scattered", "fold_border border"),
    (contract, "_named _sum_lonely einsum_pair",
     "contract np.einsum np.matmul np.tensordot np.layers"),
)  # fmt: skip
ORDER = """jvp transpose vjp batch linearize second_order batch_of_batch jacobians value infer
    leading depends batch_leading""".split()
COMBINATIONS = (("float64", "numpy"), ("complex128", "numpy"), ("float32", "numpy"))
SECONDS = 30  # a mutant that loops is found out by its time
# Mutants that compute the same numbers: nothing can notice them.
_MASKED = "the number stands where a mask, or a factor of zero, hides it"
_RECAST = "the dtype named here is put right by the cast that follows"
_ANYWHERE = "the mapped axis is named, so any place among the named ones is right"
_FASTER = "the other branch gives the same numbers, slower"
_COMMUTES = "the two are multiplied"
_BELOW = "the term changes by less than the last bit"
EQUIVALENT = {
    "aligned: -axis  ->  axis": _FASTER,
    "_Extreme.jvp: 1  ->  2  in  ew.where(ew.equal(count, 0), 1, count)": _MASKED,
    "LogSumExp.jvp: 0.0  ->  1.0  in  ew.where(ew.isfinite(result), result, 0.0)": _MASKED,
    "Norm.jvp: 1.0  ->  2.0  in  ew.where(zero, 1.0, result)": _MASKED,
    "ComplexAbs.jvp: 1.0  ->  2.0  in  ew.where(zero, 1.0, result)": _MASKED,
    "_power_of_base: 1.0  ->  2.0  in  where(zero, 1.0, a)": _MASKED,
    "_power_of_exponent: 1.0  ->  2.0  in  where(zero, 1.0, a)": _MASKED,
    "_sinc_slope: 1.0  ->  2.0  in  where(near, 1.0, x)": _MASKED,
    "_not_zero: 1.0  ->  2.0  in  where(equal(x, 0), 1.0, x)": _MASKED,
    "spread_steps: 1  ->  2  in  (1,)": "axes that are padded are new ones whatever their length",
    "Norm.jvp: real(x.dtype, result.dtype)  ->  real(result.dtype, x.dtype)": _RECAST,
    "ComplexAbs.jvp: real(dtype_of(z), dtype_of(result))  ->  real(dtype_of(result), dtype_of(z))": _RECAST,
    "Inv.jvp: contract('ij', 'jk', 'ik')  ->  contract('jk', 'ij', 'ik')": "a palindrome: r t r",
    "Slogdet.jvp: 2  ->  3  in  (2,)": "the shape of a constant that is sliced is asked by its transpose only",
    "_ratio: 1.0  ->  2.0  in  where(both, 1.0, y)": _MASKED,
    "Svd.jvp: _sum_of(p, _row(s), ph, _column(s))  ->  _sum_of(_row(s), p, ph, _column(s))": _COMMUTES,
    "Svd.jvp: _sum_of(p, _column(s), ph, _row(s))  ->  _sum_of(_column(s), p, ph, _row(s))": _COMMUTES,
    "_off_diagonal: gaps + eye  ->  gaps - eye": _MASKED,
    "Eigvalsh.jvp: real(found.dtype, result.dtype)  ->  real(result.dtype, found.dtype)": _RECAST,
    "Svdvals.jvp: real(found.dtype, result.dtype)  ->  real(result.dtype, found.dtype)": _RECAST,
    "_gathered: 0  ->  1  in  combinations[0]": _FASTER,
    "coefficient: op.singular and (op.tame is None or not op.tame(*xs))  ->  "
    "op.singular or (op.tame is None or not op.tame(*xs))": _FASTER,
    "LinearSolve.batch: lead_b > 1  ->  lead_b < 1": _FASTER,
    "LinearSolve.batch: not kept  ->  kept": _FASTER,
    "LinearSolve.batch: 1  ->  2  in  lead_b > 1": _FASTER,
    "_sinc_slope: 3991680  ->  3991681  in  -1 / 3991680": _BELOW,
    "_sinc_slope: 518918400  ->  518918401  in  s / 518918400": _BELOW,
    "_named: -len(letters) - 1  ->  -len(letters)": _ANYWHERE,
    "_named: -len(letters) - 1  ->  1": _ANYWHERE,
    "_named: -len(letters) - 1  ->  -len(letters) + 1": _ANYWHERE,
    "_named: -len(letters)  ->  len(letters)": _ANYWHERE,
    "_named: 1  ->  2  in  -len(letters) - 1": _ANYWHERE,
}


class Mutant(NamedTuple):
    """A broken rule: what it is called, which ops' checks must notice, how to put it in place."""

    name: str
    watched: tuple[str, ...]
    install: Callable[[], Callable[[], None]]  # returns the way back


# ---------------------------------------------------------------- whole rules


@dataclass(frozen=True)
class Bent(Linear):
    """A structural op whose result is bent: doubled, negated, zeroed or reversed."""

    name = "bent"
    op: Any
    how: str

    def evaluate(self, be: Any, x: Any) -> Any:
        return bend(self.op(x), self.how)

    @cached_property
    def transposed(self) -> Any:
        return Bent(self.dst, self.src, self.op.transposed, self.how)


def bent(op: Any, how: str) -> Any:
    return Bent(op.src, op.dst, op, how)


def bend(x: Any, how: str) -> Any:
    """x times two, minus x, zero, or x with its last axis reversed."""
    if type(x) is Mask:
        keep = {"x2": elementwise.logical_not(x.keep), "sign": x.keep == x.keep, "zero": x.keep != x.keep}
        return Mask(keep[how], x.factor)
    if how == "reverse":
        return structure.flip(tuple(x.shape), (-1,))(x) if x.shape else 3 * x
    return {"x2": lambda: x * 2, "sign": lambda: -x, "zero": lambda: x * 0, "one": lambda: x + 1}[how]()


HOWS = ("x2", "sign", "zero")
# Functions whose checks see more of an op than its own: complex vectors are fixed up to a phase only.
ALSO = {"svd": ("np.linalg.svd",)}
NO_SLOPE = {("copysign", 1), ("nextafter", 1)}  # slopes that are zero everywhere
# Swapping the operands of these changes nothing.
SYMMETRIC = """equal not_equal logical_or logical_and maximum minimum add multiply hypot max times
    plus _trace_of_product""".split()


def slope_mutants(op: Any) -> Iterator[Mutant]:
    """Slopes doubled, negated, dropped, swapped."""
    for p, slope in enumerate(op.slopes):
        if op.name in ("where", "zeta") and p == 0:
            continue  # the condition carries no tangent, and of zeta that slope does not exist
        for how in ("one",) if (op.name, p) in NO_SLOPE else HOWS:

            def broken(*xs: Any, slope: Any = slope, how: str = how) -> Any:
                return bend(1 if slope is None else slope(*xs), how)

            slopes = tuple(broken if q == p else s for q, s in enumerate(op.slopes))
            yield Mutant(f"{op.name}: slope {p} {how}", (op.name,), setter(op, "slopes", slopes))
    a, b = op.slopes[-2:] if op.arity > 1 else (None, None)
    if a is not b:
        swapped = (*op.slopes[:-2], b, a)
        yield Mutant(f"{op.name}: slopes swapped", (op.name,), setter(op, "slopes", swapped))


def setter(target: Any, name: str, value: Any) -> Callable:
    """Installs an attribute, also of frozen instances; returns the way back."""

    def install() -> Callable[[], None]:
        own = name in vars(target)
        old = vars(target).get(name)
        put = type.__setattr__ if isinstance(target, type) else object.__setattr__
        put(target, name, value)

        def back() -> None:
            if own:
                put(target, name, old)
            else:
                delattr(target, name)

        return back

    return install


def class_mutants(cls: type) -> Iterator[Mutant]:
    """Whole rules of a structural or general op bent."""
    watched = (cls.name,)  # every catalogued class has a name
    if issubclass(cls, Linear):
        rule = vars(cls)["transposed"]
        for how in (*HOWS, "reverse"):
            broken = property(lambda self, rule=rule, how=how: bent(rule.func(self), how))
            yield Mutant(f"{cls.__name__}.transposed {how}", watched, setter(cls, "transposed", broken))
    elif issubclass(cls, Joint):
        rule = vars(cls)["parts"]
        for how in (*HOWS, "reverse"):
            broken = property(lambda self, rule=rule, how=how: tuple(bent(o, how) for o in rule.func(self)))
            yield Mutant(f"{cls.__name__}.parts {how}", watched, setter(cls, "parts", broken))
        swapped = property(lambda self, rule=rule: rule.func(self)[::-1])
        yield Mutant(f"{cls.__name__}.parts swapped", watched, setter(cls, "parts", swapped))
    else:
        yield from general_mutants(cls, watched)


def general_mutants(cls: Any, watched: tuple) -> Iterator[Mutant]:
    """jvp, transpose and batch of a general op bent."""
    own = cls.jvp is not General.jvp  # without a rule of its own an op is decomposed
    bends = cls.nonlinear and own and not cls.flat and "jvp" not in cls.refuses
    rules = [r for r, has in (("jvp", bends), ("transpose", cls.linear_in)) if has]
    for name in rules:
        original = getattr(cls, name)
        for how in HOWS:

            def broken(self: Any, *args: Any, rule: Any = original, how: str = how) -> Any:
                return bend(rule(self, *args), how)

            yield Mutant(f"{cls.__name__}.{name} {how}", watched, setter(cls, name, broken))
    if getattr(cls, "leading", False):
        return
    for how in ("x2", "axis"):

        def batched(self: Any, *args: Any, rule: Any = cls.batch, how: str = how) -> Any:
            y, axis = rule(self, *args)
            if how == "x2":
                return y * 2 + 1, axis
            return y, axis + 1 if axis < -1 else axis - 1

        yield Mutant(f"{cls.__name__}.batch {how}", watched, setter(cls, "batch", batched))


# ---------------------------------------------------------------- inside a rule


def function_of(member: Any) -> types.FunctionType | None:
    """The plain function behind a method, property or cached function."""
    for name in ("func", "fget", "__wrapped__"):
        member = getattr(member, name, member)
    return member if isinstance(member, types.FunctionType) else None


def tree_of(function: types.FunctionType) -> ast.AST | None:
    """The syntax tree of a function, its lambda or def, found by position."""
    module = ast.parse(inspect.getsource(inspect.getmodule(function)))
    name, first = function.__code__.co_name, function.__code__.co_firstlineno
    spots = {(a, c) for a, _, c, _ in function.__code__.co_positions() if a is not None and c}
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            lines = [node.lineno, *(d.lineno for d in node.decorator_list)]
            if first in lines:
                node.decorator_list = []
                return node
        if isinstance(node, ast.Lambda) and name == "<lambda>" and node.lineno == first:
            body = node.body
            inside = all(
                (body.lineno, body.col_offset) <= (a, c) <= (body.end_lineno, body.end_col_offset)
                for a, c in spots
            )
            if inside and spots:
                return node
    return None


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """Other expressions in the place of one: dropped terms, other signs, numbers and branches."""
    if isinstance(node, ast.BinOp):
        yield node.left
        yield node.right
        if isinstance(node.op, (ast.Add, ast.Sub)):
            other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield ast.BinOp(node.left, other, node.right)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Call) and len(node.args) > 1:
        symmetric = ast.unparse(node.func).rpartition(".")[2] in SYMMETRIC
        if not symmetric and not any(isinstance(a, ast.Starred) for a in node.args[:2]):
            yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in FLIPS:
        yield ast.Compare(node.left, [FLIPS[type(node.ops[0])]()], node.comparators)


FLIPS = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.Gt, ast.GtE: ast.Lt,
}  # fmt: skip


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Every expression of a function's body: (parent, field, position in a list, expression)."""
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if field in ("args", "decorator_list", "returns", "annotation") and not isinstance(parent, ast.Call):
                continue
            if isinstance(parent, (ast.Raise, ast.JoinedStr, ast.FormattedValue, ast.Assert, ast.AnnAssign)):
                continue
            if isinstance(parent, ast.keyword) and parent.arg == "strict":
                continue  # a check of lengths, which agree
            if isinstance(value, list):
                yield from ((parent, field, i, v) for i, v in enumerate(value) if isinstance(v, ast.expr))
            elif isinstance(value, ast.expr):
                yield parent, field, None, value


def code_mutants(function: types.FunctionType, label: str, watched: tuple) -> Iterator[Mutant]:
    """One mutant per variant of every expression of a function."""
    tree = tree_of(function)
    if tree is None:
        raise LookupError(f"the source of {label} was not found")
    for parent, field, position, expression in list(places(tree)):
        for other in variants(expression):
            _put(parent, field, position, other)
            try:
                code = compiled(tree, function)
            finally:
                _put(parent, field, position, expression)
            what = f"{label}: {_short(expression)}  ->  {_short(other)}"
            around = _short(parent) if isinstance(parent, ast.expr) else ""
            what += f"  in  {around}" if around and isinstance(expression, (ast.Constant, ast.Name)) else ""
            yield Mutant(what, watched, lambda code=code: swap_code(function, code))


def _put(parent: ast.AST, field: str, position: int | None, value: ast.AST) -> None:
    if position is None:
        setattr(parent, field, value)
    else:
        getattr(parent, field)[position] = value


def _short(node: ast.AST) -> str:
    return textwrap.shorten(ast.unparse(node), 70)


def compiled(tree: ast.AST, function: types.FunctionType) -> types.CodeType:
    """The code object of a mutated tree."""
    fresh = ast.parse(ast.unparse(tree))
    module = compile(fresh, f"<mutant of {function.__qualname__}>", "exec")
    name = function.__code__.co_name
    return next(c for c in module.co_consts if isinstance(c, types.CodeType) and c.co_name == name)


def swap_code(function: types.FunctionType, code: types.CodeType) -> Callable[[], None]:
    old = function.__code__
    function.__code__ = code

    def back() -> None:
        function.__code__ = old

    return back


def rule_functions() -> Iterator[tuple[types.FunctionType, str, tuple[str, ...]]]:
    """Every function that is (part of) a rule, its label and the ops whose checks must notice."""
    seen: dict[types.FunctionType, tuple[str, list[str]]] = {}
    for op in POINTWISE.values():
        for p, slope in enumerate(op.slopes):
            if isinstance(slope, types.FunctionType) and slope.__name__ == "<lambda>":
                seen.setdefault(slope, (f"{op.name} slope {p}", []))[1].append(op.name)
    for cls in STRUCTURAL:
        for base in cls.__mro__:
            for name in RULES if base.__module__.startswith("gpujac.ops") else ():
                found = function_of(vars(base).get(name))
                if found is not None and getattr(cls, name, None) is not None:
                    label = f"{base.__name__}.{name}"
                    seen.setdefault(found, (label, []))[1].append(cls.name)
    for module, names, watched in SHARED:
        for name in names.split():
            found = function_of(vars(module)[name])
            assert found is not None
            seen[found] = (name, watched.split())
    for function, (label, names) in seen.items():
        yield function, label, tuple(dict.fromkeys([*names, *[w for n in names for w in ALSO.get(n, ())]]))


def all_mutants() -> list[Mutant]:
    """Every mutant, in a fixed order."""
    found: list[Mutant] = []
    for op in POINTWISE.values():
        found += [] if op.flat else slope_mutants(op)
    for cls in STRUCTURAL:
        found += class_mutants(cls)
    for function, label, watched in rule_functions():
        found += code_mutants(function, label, watched)
    return found


# ---------------------------------------------------------------- running


def forget() -> None:
    """Empties every cache that may hold results of rules."""
    for module in MODULES:
        for value in vars(module).values():
            clear = getattr(value, "cache_clear", None)
            if clear is not None:
                clear()
            if isinstance(value, Op) and not isinstance(value, type):
                for name in [n for n in vars(value) if isinstance(getattr(type(value), n, None), cached_property)]:
                    vars(value).pop(name)


@contextmanager
def in_place(mutant: Mutant) -> Iterator[None]:
    """The mutant instead of the rule, for a while."""
    forget()
    back = mutant.install()
    try:
        yield
    finally:
        back()
        forget()


def check_all(watched: tuple[str, ...]) -> None:
    """The checks of some ops, those that notice most first; raises at the first that fails."""
    for check in ORDER:
        for dtype, library in COMBINATIONS:
            for name in watched:
                if catalogue.refusal(name, library):
                    continue
                for case in catalogue.cases(name):
                    if case.works_in(dtype):
                        CHECKS[check](Run(case, dtype, catalogue.LIBRARIES[library]))
        if check == ORDER[0]:
            check_kinks()
    for program in test_dtypes.PROGRAMS:
        test_dtypes.test_every_transform_keeps_the_dtype(program, np.float32)


def check_kinks() -> None:
    """The values at kinks, in three modes."""
    for f, x, wanted in test_kinks.ROWS.values():
        for mode in ("grad", "jvp", "jacfwd"):
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(test_kinks.MODES[mode](f, x), wanted, rtol=1e-9, atol=1e-9)
    for name, test in vars(test_kinks).items():
        if name.startswith("test_") and not inspect.signature(test).parameters:
            test()


def _too_long(signum: int, frame: Any) -> None:
    raise TimeoutError


def survives(mutant: Mutant) -> bool:
    """Whether no check notices the mutant."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        with in_place(mutant):
            check_all(mutant.watched)
    except (Exception, TimeoutError):
        return False
    finally:
        signal.alarm(0)
    return True


def _survives_by_number(number: int) -> bool:
    return survives(_MUTANTS[number])


_MUTANTS: list[Mutant] = []  # shared with the worker processes, which are forks


def main(names: list[str]) -> int:
    """Runs all mutants in two processes; the exit status says whether one survived."""
    warnings.simplefilter("error")
    started = time.monotonic()
    check_all(tuple(catalogue.NAMES))  # nothing is proved by tests that fail anyway
    _MUTANTS[:] = [m for m in all_mutants() if not names or set(m.watched) & set(names)]
    if not _MUTANTS:
        print(f"no mutants: none of {', '.join(names)} is an op of the catalogue")
        return 2
    with multiprocessing.get_context("fork").Pool(2) as pool:
        alive = pool.map(_survives_by_number, range(len(_MUTANTS)), chunksize=8)
    left = [m for m, a in zip(_MUTANTS, alive, strict=True) if a]
    equivalent = [m for m in left if m.name in EQUIVALENT]
    survivors = [m for m in left if m.name not in EQUIVALENT]
    stale = set(EQUIVALENT) - {m.name for m in equivalent} if not names else set()
    for m in survivors:
        print(f"survived: {m.name}")
    for name in sorted(stale):
        print(f"not a surviving mutant any more, take it out of EQUIVALENT: {name}")
    print(
        f"{len(_MUTANTS) - len(equivalent)} mutants, {len(survivors)} survivors"
        f" ({len(equivalent)} more compute the same numbers; {time.monotonic() - started:.0f} s)"
    )
    return 1 if survivors or stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
