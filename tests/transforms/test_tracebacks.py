"""The traceback of an error inside f: it ends in the user's line, or leads through it, with few frames of ours."""

import traceback
from pathlib import Path

import numpy as np
import pytest
from numpy import asarray

import gpujac as gj
import gpujac.numpy as gnp
from gpujac import settings

X = np.array([0.5, 1.0, 2.0])
PLAIN = np.zeros(3)
MOST = 6
OURS = str(Path(gj.__file__).parent)

TRANSFORMS = {
    "grad": gj.grad,
    "value_and_grad": gj.value_and_grad,
    "grad_and_value": gj.grad_and_value,
    "vjp": lambda f: lambda x: gj.vjp(f, x),
    "jvp": lambda f: lambda x: gj.jvp(f, (x,), (x,)),
    "linearize": lambda f: lambda x: gj.linearize(f, x),
    "linear_transpose": lambda f: lambda x: gj.linear_transpose(f, x),
    "jacrev": gj.jacrev,
    "jacfwd": gj.jacfwd,
    "jacobian": gj.jacobian,
    "hessian": gj.hessian,
    "vmap": lambda f: lambda x: gj.vmap(f)(np.stack([x, x])),
    "chunked vmap": lambda f: lambda x: gj.vmap(f, chunk_size=1)(np.stack([x, x])),
    "looped vmap": lambda f: lambda x: gj.vmap(f, method="loop")(np.stack([x, x])),
    "show": gj.show,
}
every_transform = pytest.mark.parametrize("name", list(TRANSFORMS))
NESTED = [(a, b) for a in ("grad", "jvp", "vmap", "jacrev", "jacfwd") for b in ("grad", "jvp", "vmap", "jacfwd")]


def frames_of(call, *args):
    """(error, its frames) of a call that raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 (any error of the user's: the frames are asked about)
        call(*args)
    return caught.value, traceback.extract_tb(caught.value.__traceback__)


def ours(frames):
    return [frame for frame in frames if frame.filename.startswith(OURS)]


def users_lines(frames):
    return [frame.line for frame in frames if frame.filename == __file__]


def after(frames):
    """Frames of ours below the user's last line."""
    last = max(i for i, frame in enumerate(frames) if frame.filename == __file__)
    return ours(frames[last:])


class MineError(Exception):
    pass


def fails(x):
    y = 2.0 * x
    raise MineError(str(y.shape))  # mine


@every_transform
def test_an_error_of_the_users_ends_in_his_line(name):
    error, frames = frames_of(TRANSFORMS[name](fails), X)
    assert type(error) is MineError
    assert frames[-1].line == "raise MineError(str(y.shape))  # mine"
    assert len(ours(frames)) <= MOST, ours(frames)


@pytest.mark.parametrize(("outer", "inner"), NESTED)
def test_of_two_transforms_too(outer, inner):
    def f(x):
        return TRANSFORMS[inner](fails)(x)  # the inner call

    error, frames = frames_of(TRANSFORMS[outer](f), X)
    assert type(error) is MineError
    assert "return TRANSFORMS[inner](fails)(x)  # the inner call" in users_lines(frames)
    assert frames[-1].line == "raise MineError(str(y.shape))  # mine"
    assert len(ours(frames)) <= MOST, ours(frames)
    error, frames = frames_of(TRANSFORMS[outer](TRANSFORMS[inner](fails)), X)
    assert frames[-1].line == "raise MineError(str(y.shape))  # mine"
    assert len(ours(frames)) <= MOST, ours(frames)


@every_transform
def test_through_trees_of_arguments(name):
    def f(tree):
        return {"a": fails(tree["a"][0])}

    trees = {"a": [X]}
    call = TRANSFORMS[name]
    if "vmap" in name:
        call = lambda f: lambda x: gj.vmap(f, chunk_size=None)({"a": [np.stack([X, X])]})
    if name == "jvp":
        call = lambda f: lambda x: gj.jvp(f, (x,), (x,))
    error, frames = frames_of(call(f), trees)
    assert type(error) is MineError
    assert frames[-1].line == "raise MineError(str(y.shape))  # mine"
    assert len(ours(frames)) <= MOST


def deep(x, n=20):
    return fails(x) if n == 0 else deep(x * 1.0, n - 1)  # deeper


@every_transform
def test_all_frames_of_the_users_stay(name):
    _, frames = frames_of(TRANSFORMS[name](deep), X)
    assert sum(line.endswith("# deeper") for line in users_lines(frames)) == 21


# Mistakes in f that we, or NumPy below us, report.
MISTAKES = {
    "reshape": (lambda x: x.reshape(5), gj.ShapeError),
    "matmul": (lambda x: x @ np.zeros((4, 4)), gj.ShapeError),
    "addition": (lambda x: x + np.zeros(7), ValueError),
    "where": (lambda x: np.where(x > 0, x, np.zeros(7)), ValueError),
    "float": (lambda x: float(x), gj.ConcretizationError),
    "asarray": (lambda x: asarray(x), gj.ConcretizationError),
    "plain buffer": (lambda x: PLAIN.__setitem__(0, x[0]), gj.MutationError),
    "out": (lambda x: np.multiply(x, x, out=PLAIN), gj.MutationError),
    "index": (lambda x: x[7], IndexError),
    "concatenate": (lambda x: np.concatenate([x, x.reshape(3, 1)]), gj.ShapeError),
    "axis": (lambda x: np.sum(x, axis=4), gj.AxisError),
    "axis of a composite": (lambda x: x.var(axis=(0, 3)), gj.AxisError),
    "unknown function": (lambda x: np.histogram(x), gj.DispatchError),
    "dtype": (lambda x: x.astype("U3"), gj.DTypeError),
    "namespace": (lambda x: gnp.concatenate([x, x[None]]), gj.ShapeError),
    "write": (lambda x: x.__setitem__(9, 1.0), IndexError),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
@pytest.mark.parametrize("name", ["grad", "vjp", "jvp", "jacrev", "jacfwd", "hessian", "vmap"])
def test_an_error_of_ours_shows_the_users_line(name, mistake):
    f, kind = MISTAKES[mistake]
    error, frames = frames_of(TRANSFORMS[name](f), X)
    assert isinstance(error, kind)
    assert users_lines(frames)[-1].startswith(f'"{mistake}": (lambda x: ')
    assert len(after(frames)) <= 2
    assert len(ours(frames)) <= MOST, ours(frames)


@pytest.mark.parametrize(("outer", "inner"), NESTED)
def test_an_error_of_ours_in_two_transforms(outer, inner):
    def f(x):
        return TRANSFORMS[inner](lambda u: u.var(axis=4))(x)  # here

    error, frames = frames_of(TRANSFORMS[outer](f), X)
    assert isinstance(error, gj.AxisError)
    assert users_lines(frames)[-1] == "return TRANSFORMS[inner](lambda u: u.var(axis=4))(x)  # here"
    assert len(after(frames)) <= 2


def test_the_frame_that_raised_stays_last():
    _, frames = frames_of(gj.grad(lambda x: x.var(axis=4)), X)
    assert ours(frames)[-1].name == "axis_of"
    assert ours(frames)[-2].name == "method"


def test_a_setting_shows_all_frames():
    call = gj.grad(lambda x: x.var(axis=(0, 4)))
    _, short = frames_of(call, X)
    with settings.override(tracebacks="full"):
        _, full = frames_of(call, X)
    assert len(ours(full)) > len(ours(short)) + 2
    assert users_lines(full) == users_lines(short)
    assert [f for f in full if f in short] == list(short)


def test_the_error_is_the_users_own_object_with_its_notes_and_cause():
    cause = KeyError("cause")
    mine = MineError("kept")
    mine.add_note("a note")

    def f(x):
        raise mine from cause

    error, _ = frames_of(gj.vmap(gj.grad(f)), np.stack([X, X]))
    assert error is mine
    assert error.__cause__ is cause
    assert error.__notes__ == ["a note"]


def test_local_variables_can_be_looked_at_as_in_any_traceback():
    def f(x):
        secret = 42
        raise MineError(secret)

    with pytest.raises(MineError) as caught:
        gj.grad(f)(X)
    link = caught.value.__traceback__
    while link.tb_next is not None:
        link = link.tb_next
    assert link.tb_frame.f_locals["secret"] == 42


@gj.custom_vjp
def with_a_bad_rule(x):
    return x * 2.0


def bad_backward(residuals, ct):
    raise MineError("in the rule")  # in the rule


with_a_bad_rule.defvjp(lambda x: (x * 2.0, None), bad_backward)
SWEEPS = {
    "grad": lambda f: gj.grad(lambda x: f(x).sum()),
    "pullback": lambda f: lambda x: gj.vjp(f, x)[1](x),
    "linear map": lambda f: lambda x: gj.linearize(f, x)[1](x),
    "jacrev": gj.jacrev,
    "jacrev in chunks": lambda f: gj.jacrev(f, chunk_size=1),
    "jacfwd": gj.jacfwd,
    "vmap of grad": lambda f: lambda x: gj.vmap(gj.grad(lambda x: f(x).sum()))(np.stack([x, x])),
}


@pytest.mark.parametrize("name", list(SWEEPS))
def test_an_error_of_a_rule_in_a_sweep_ends_in_its_line(name):
    error, frames = frames_of(SWEEPS[name](with_a_bad_rule), X)
    assert type(error) is MineError
    assert frames[-1].line == 'raise MineError("in the rule")  # in the rule'
    assert len(ours(frames)) <= MOST, ours(frames)


FORMS = {
    "cond": lambda x: gj.cond(True, fails, fails, x),
    "while_loop": lambda x: gj.while_loop(lambda s: True, fails, x),
    "fori_loop": lambda x: gj.fori_loop(0, 3, lambda i, s: fails(s), x),
    "scan": lambda x: gj.scan(lambda carry, x: fails(carry), x, np.ones((2, 3))),
    "map": lambda x: gj.control.map(fails, x),
    "map in batches": lambda x: gj.control.map(fails, x, batch_size=2),
    "checkpoint": lambda x: gj.checkpoint(fails)(x),
}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("name", ["grad", "jvp", "vmap", "jacrev"])
def test_an_error_in_a_control_form_ends_in_the_users_line(name, form):
    error, frames = frames_of(TRANSFORMS[name](FORMS[form]), X)
    assert type(error) is MineError
    assert frames[-1].line == "raise MineError(str(y.shape))  # mine"
    assert len(ours(frames)) <= MOST, ours(frames)


def test_a_map_in_batches_of_plain_values_leaves_few_frames():
    _, frames = frames_of(lambda: gj.control.map(fails, X, batch_size=2))
    assert frames[-1].line == "raise MineError(str(y.shape))  # mine"
    assert len(ours(frames)) <= MOST, ours(frames)
