"""A traced array that outlives its transform raises at its next use, and names the line that made it."""

import copy
import gc
import inspect
import pickle
import sys
import weakref

import numpy as np
import pytest
from numpy import asarray

import gpujac as gj
import gpujac.numpy as gnp
from gpujac.core.trace import open_traces

X = np.array([0.5, 1.0, 2.0])


def lines_around(f):
    """(first, last) line of a function of this file."""
    lines, first = inspect.getsourcelines(f)
    return first, first + len(lines) - 1


# Every transform as a call of `f` on traced arrays of shape (3,).
OPEN = {
    "grad": lambda f: gj.grad(lambda x: f(x).sum())(X),
    "vjp": lambda f: gj.vjp(f, X),
    "jvp": lambda f: gj.jvp(f, (X,), (X,)),
    "linearize": lambda f: gj.linearize(f, X),
    "vmap": lambda f: gj.vmap(f)(np.stack([X, X])),
    "linear_transpose": lambda f: gj.linear_transpose(f, X),
    "jacrev": lambda f: gj.jacrev(f)(X),
    "jacfwd": lambda f: gj.jacfwd(f)(X),
    "hessian": lambda f: gj.hessian(lambda x: f(x).sum())(X),
    "vmap of grad": lambda f: gj.vmap(gj.grad(lambda x: f(x).sum()))(np.stack([X, X])),
}
every_transform = pytest.mark.parametrize("name", list(OPEN))


def leaked_by(name):
    """A tracer that a function left outside, made on the line that says so."""
    kept = []

    def f(x):
        y = 2.0 * x  # made here
        kept.append(y)
        return y

    OPEN[name](f)
    return kept[-1], f


def the_error(use, *args):
    with pytest.raises(gj.LeakedTracerError, match="escaped") as caught:
        use(*args)
    return str(caught.value)


def check_line(message, marker):
    """The message ends in the file and the text of the line with the marker."""
    assert f'File "{__file__}", line ' in message
    assert message.rstrip().endswith(marker), message


# ---------------------------------------------------------------- uses

USES = {
    "addition": lambda y: y + 1.0,
    "reflected": lambda y: 1.0 - y,
    "power": lambda y: y**2,
    "comparison": lambda y: y < 1.0,
    "negation": lambda y: -y,
    "ufunc": lambda y: np.sin(y),
    "ufunc of two": lambda y: np.add(y, 1.0),
    "ufunc of three": lambda y: np.clip(y, 0.0, 1.0),
    "function": lambda y: np.concatenate([y, y]),
    "method": lambda y: y.sum(),
    "reshape": lambda y: y.reshape(3, 1),
    "reshape to its own shape": lambda y: y.reshape(-1),
    "ravel": lambda y: y.ravel(),
    "flatten": lambda y: y.flatten(),
    "transpose of one axis": lambda y: y.T,
    "squeeze": lambda y: np.squeeze(y),
    "copy": lambda y: y.copy(),
    "np.copy": lambda y: np.copy(y),
    "copy.copy": lambda y: copy.copy(y),
    "copy.deepcopy": lambda y: copy.deepcopy(y),
    "astype its own dtype": lambda y: y.astype(y.dtype, copy=False),
    "real": lambda y: y.real,
    "conj": lambda y: y.conj(),
    "ellipsis": lambda y: y[...],
    "view": lambda y: y.view(),
    "asarray of a namespace": lambda y: gnp.asarray(y),
    "matmul": lambda y: y @ np.eye(3),
    "plain matmul": lambda y: np.eye(3) @ y,
    "namespace": lambda y: gnp.exp(y),
    "index": lambda y: y[0],
    "slice": lambda y: y[1:],
    "index array": lambda y: y[np.array([0, 2])],
    "write": lambda y: y.__setitem__(0, 1.0),
    "iteration": lambda y: list(y),
    "bool": lambda y: bool(y.reshape(3)[0]),
    "value": lambda y: gj.value(y),
    "item": lambda y: y.item(0),
    "asarray": lambda y: asarray(y),
    "tolist": lambda y: y.tolist(),
    "grad of it": lambda y: gj.grad(lambda x: x.sum())(y),
    "jvp at it": lambda y: gj.jvp(np.sin, (y,), (X,)),
    "jvp along it": lambda y: gj.jvp(np.sin, (X,), (y,)),
    "vjp at it": lambda y: gj.vjp(np.sin, y),
    "cotangent": lambda y: gj.vjp(np.sin, X)[1](y),
    "tangent of linearize": lambda y: gj.linearize(np.sin, X)[1](y),
    "vmap over it": lambda y: gj.vmap(np.sin)(y),
    "vmap beside it": lambda y: gj.vmap(lambda a, b: a, in_dims=(0, None))(X, y),
    "jacrev at it": lambda y: gj.jacrev(np.sin)(y),
    "linear_transpose at it": lambda y: gj.linear_transpose(lambda x: x, y),
    "result of grad": lambda y: gj.grad(lambda x: y.sum())(X),
    "result of vjp": lambda y: gj.vjp(lambda x: y, X),
    "result of jvp": lambda y: gj.jvp(lambda x: y, (X,), (X,)),
    "result of vmap": lambda y: gj.vmap(lambda x: y)(X),
    "result of jacrev": lambda y: gj.jacrev(lambda x: y)(X),
    "inside grad": lambda y: gj.grad(lambda x: (x * y).sum())(X),
    "inside jvp": lambda y: gj.jvp(lambda x: np.add(x, y), (X,), (X,)),
    "inside vmap": lambda y: gj.vmap(lambda x: x + y)(X),
    "inside linear_transpose": lambda y: gj.linear_transpose(lambda x: x * y, X),
    "one dimension at least": lambda y: np.atleast_1d(y),
    "several of one dimension": lambda y: np.atleast_1d(y, y),
    "no border": lambda y: np.pad(y, 0),
    "no reflected border": lambda y: np.pad(y, 0, mode="reflect"),
    "no shift": lambda y: np.fft.fftshift(y, axes=()),
    "joined alone": lambda y: np.concatenate([y]),
    "no limits": lambda y: np.clip(y, None, None),
    "no differences": lambda y: np.diff(y, 0),
    "median over no axes": lambda y: np.median(y, ()),
    "sum over no axes": lambda y: y.sum(()),
    "imag": lambda y: np.imag(y),
    "real if close": lambda y: np.real_if_close(y),
    "one repetition": lambda y: np.tile(y, 1),
    "no rotation": lambda y: np.roll(y, 0),
    "flip of no axes": lambda y: np.flip(y, ()),
    "broadcast to its own shape": lambda y: np.broadcast_to(y, (3,)),
    "broadcast with itself": lambda y: np.broadcast_arrays(y, y),
    "stop_gradient": lambda y: gj.stop_gradient(y),
    "where": lambda y: gj.grad(lambda x: np.where(X > 1, x, y).sum())(X),
}


@pytest.mark.parametrize("use", list(USES))
@pytest.mark.parametrize("name", ["grad", "jvp", "vmap", "linear_transpose"])
def test_every_use_of_a_leaked_array_raises_and_names_its_line(name, use):
    y, _ = leaked_by(name)
    check_line(the_error(USES[use], y), "y = 2.0 * x  # made here")


@every_transform
def test_the_message_names_transform_function_shape_and_cure(name):
    y, f = leaked_by(name)
    message = the_error(lambda: y * 2.0)
    what = {"vmap of grad": "grad"}.get(name, name)
    assert f"escaped from {what} of " in message
    assert "shape (3,) and dtype float64" in message
    assert "has_aux=True" in message
    number = int(message.partition(f'File "{__file__}", line ')[2].partition(",")[0])
    assert lines_around(f)[0] < number < lines_around(f)[1]


@pytest.mark.parametrize("number", [float, complex, int])
def test_numbers_of_a_leaked_scalar(number):
    kept = []
    gj.grad(lambda x: kept.append(x[0]) or x.sum())(X)
    check_line(the_error(number, kept[0]), "gj.grad(lambda x: kept.append(x[0]) or x.sum())(X)")
    check_line(the_error("{:.2f}".format, kept[0]), "gj.grad(lambda x: kept.append(x[0]) or x.sum())(X)")


def test_pickling_says_that_it_would_lose_the_derivative():
    y, _ = leaked_by("grad")
    with pytest.raises(gj.ConcretizationError, match="pickling"):
        pickle.dumps(y)


@every_transform
def test_a_leaked_array_may_be_shown(name):
    y, _ = leaked_by(name)
    for text in (repr(y), str(y), f"{y}", "%s" % y, f"{[y]}"):  # noqa: UP031 (an old way that must work too)
        assert "finished" in text
        assert "shape (3,), float64" in text
    assert (y.shape, y.dtype, y.ndim, len(y)) == ((3,), np.float64, 1, 3)


# ---------------------------------------------------------------- ways out


class Holder:
    pass


HOLDER = Holder()
LEAKED = []


def by_global(x):
    LEAKED[:] = [x * 2]
    return x


def by_attribute(x):
    HOLDER.value = x * 2
    return x


def by_closure(x):
    y = x * 2
    HOLDER.value = lambda: y
    return x


def by_generator(x):
    def values():
        y = x * 2
        yield y
        yield y

    HOLDER.value = values()
    next(HOLDER.value)
    return x


def by_default(x):
    def later(y=x * 2):
        return y

    HOLDER.value = later
    return x


class WithError(Exception):
    pass


def by_exception(x):
    raise WithError(x * 2)


WAYS = {
    by_global: lambda: LEAKED[0],
    by_attribute: lambda: HOLDER.value,
    by_closure: lambda: HOLDER.value(),
    by_generator: lambda: next(HOLDER.value),
    by_default: lambda: HOLDER.value(),
}


@every_transform
@pytest.mark.parametrize("way", list(WAYS), ids=lambda way: way.__name__)
def test_however_it_leaves_the_function_it_raises_and_names_the_line_of_the_function(name, way):
    OPEN[name](way)
    message = the_error(lambda: WAYS[way]() + 1.0)
    check_line(message, "x * 2]" if way is by_global else "x * 2):" if way is by_default else "x * 2")


@every_transform
def test_an_array_in_the_users_exception_raises_when_it_is_used(name):
    with pytest.raises(WithError) as caught:
        OPEN[name](by_exception)
    check_line(the_error(lambda: caught.value.args[0] + 1.0), "raise WithError(x * 2)")


def test_an_object_in_aux_hides_an_array_from_the_transform():
    def f(x):
        box = Holder()
        box.value = np.exp(x)  # made here
        return x.sum(), box

    _, box = gj.grad(f, has_aux=True)(X)
    check_line(the_error(lambda: box.value * 2), "box.value = np.exp(x)  # made here")
    aux = gj.vjp(lambda x: (x, {"plain": np.exp(x)}), X, has_aux=True)[2]
    np.testing.assert_allclose(aux["plain"], np.exp(X))


def test_the_argument_itself_names_the_call_that_made_it():
    kept = []
    gj.grad(lambda x: kept.append(x) or x.sum())(X)  # the call
    check_line(the_error(lambda: kept[0] + 1), "gj.grad(lambda x: kept.append(x) or x.sum())(X)  # the call")


# What makes arrays in one way or another; each line must be named.
MAKERS = {
    "operator": lambda x: x * 2,
    "reflected": lambda x: 2 / x,
    "negative": lambda x: -x,
    "absolute": lambda x: abs(x),
    "ufunc": lambda x: np.sin(x),
    "ufunc of two": lambda x: np.maximum(x, 1.0),
    "method": lambda x: x.cumsum(),
    "property": lambda x: x.reshape(1, 3).T,
    "sum": lambda x: np.sum(x),
    "composite": lambda x: np.var(x),
    "slice": lambda x: x[1:],
    "item of it": lambda x: x[0],
    "iteration": lambda x: list(x)[1],
    "unpacking": lambda x: (lambda a, b, c: b)(*x),
    "matmul": lambda x: x @ x,
    "joined": lambda x: np.concatenate([x, x]),
    "namespace": lambda x: gnp.tanh(x),
    "einsum": lambda x: np.einsum("i,j->ij", x, x),
    "zeros_like": lambda x: np.zeros_like(x),
    "where": lambda x: np.where(X > 1, x, 0.0),
    "copy": lambda x: x.copy(),
    "inner grad": lambda x: gj.grad(lambda u: (u * x).sum() * u[0])(X),
    "inner value_and_grad": lambda x: gj.value_and_grad(lambda u: (u * x).sum())(X)[0],
    "inner jacrev": lambda x: gj.jacrev(lambda u: u * x)(X),
    "inner jacfwd": lambda x: gj.jacfwd(lambda u: u * x)(X),
    "inner hessian": lambda x: gj.hessian(lambda u: (u * u * x).sum())(X),
    "inner jvp": lambda x: gj.jvp(np.sin, (x,), (x,))[1],
    "inner vmap": lambda x: gj.vmap(lambda u: u * x[0])(X),
    "inner pullback": lambda x: gj.vjp(np.sin, x)[1](x)[0],
    "inner linear map": lambda x: gj.linearize(np.sin, x)[1](x),
    "written": lambda x: written(x),
}  # fmt: skip


def written(x):
    y = np.zeros_like(x)
    y[0] = x[1]
    return y


@pytest.mark.parametrize("maker", list(MAKERS))
@pytest.mark.parametrize("name", ["grad", "jvp", "vmap"])
def test_whatever_makes_an_array_its_line_is_known(name, maker):
    kept = []

    def f(x):
        y = MAKERS[maker](x)
        kept.append(y)
        return (0 * np.sum(y) + x).sum()

    {"grad": gj.grad(f), "jvp": lambda x: gj.jvp(f, (x,), (x,)),
     "vmap": lambda x: gj.vmap(f)(np.stack([x, x]))}[name](X)  # fmt: skip
    message = the_error(lambda: np.sum(kept[0]) + 1)
    if maker != "written":
        check_line(message, f'"{maker}": {inspect.getsource(MAKERS[maker]).strip().partition(": ")[2]}')
    else:
        assert message.rstrip().rpartition("\n")[2].strip().startswith(f'File "{__file__}"')


def test_lines_of_a_helper_that_works_on_its_own():
    kept = []

    def helper(u):
        return u * 3.0  # in the helper

    def f(x):
        y = x * 2.0
        kept.append(helper(y))
        y = y * 2.0
        kept.append(y)  # the line before
        return y.sum()

    gj.grad(f)(X)
    check_line(the_error(lambda: kept[0] + 1), "return u * 3.0  # in the helper")
    check_line(the_error(lambda: kept[1] + 1), "y = y * 2.0")


@every_transform
def test_each_of_several_lines_in_a_row(name):
    kept = []

    def f(x):
        a = x * 2.0
        b = np.sin(a)
        c = 1.0 - b
        d = np.add(c, a)
        kept[:] = [a, b, c, d]
        return d

    OPEN[name](f) if name != "linear_transpose" else gj.linear_transpose(linear_lines(kept), X)
    for y, text in zip(kept, ("a = x * 2.0", "b = ", "c = ", "d = np.add(c, a)"), strict=True):
        assert the_error(lambda y=y: y + 1.0).rpartition(": ")[2].startswith(text)


def linear_lines(kept):
    def f(x):
        a = x * 2.0
        b = a / 3.0
        c = -1.0 * b
        d = np.add(c, a)
        kept[:] = [a, b, c, d]
        return d

    return f


def test_code_without_a_file_has_a_number_at_least():
    scope = {"np": np, "kept": []}
    exec("def f(x):\n    y = np.sin(x)\n    kept.append(y)\n    return y.sum()", scope)
    gj.grad(scope["f"])(X)
    assert 'File "<string>", line 2, in f' in the_error(lambda: scope["kept"][0] + 1)


def test_an_array_of_the_outer_function_may_be_kept_by_the_inner_one():
    kept = []

    def f(x):
        gj.grad(lambda u: (kept.append(x * 2), (u * x).sum())[1])(X)
        return (kept[0] * x).sum()  # x * 2 belongs to this level, which is open

    np.testing.assert_allclose(gj.grad(f)(X), 4 * X)


def test_an_array_of_the_inner_function_raises_in_the_outer_one():
    kept = []

    def f(x):
        gj.grad(lambda u: (kept.append(u * x), (u * x).sum())[1])(X)
        return (kept[0] * x).sum()

    check_line(the_error(gj.grad(f), X), "gj.grad(lambda u: (kept.append(u * x), (u * x).sum())[1])(X)")


# ---------------------------------------------------------------- what it costs


def test_knowing_the_line_keeps_no_local_variable_alive():
    class Large:
        pass

    kept, alive = [], []

    def helper(x):
        large = Large()
        alive.append(weakref.ref(large))
        return x * 2.0

    def f(x):
        large = Large()
        alive.append(weakref.ref(large))
        kept.extend([helper(x), np.sum(x), gj.grad(lambda u: (u * x).sum())(X)])
        return kept[0].sum()

    gc.disable()
    try:
        gj.grad(f)(X)
        assert [ref() for ref in alive] == [None, None]
    finally:
        gc.enable()
    assert all(y.made_at() is not None for y in kept)


def test_a_leaked_array_keeps_no_program_alive():
    kept, alive = [], []

    def f(x):
        big = np.ones(3)
        alive.append(weakref.ref(big))
        y = x * big
        kept.append(x)
        return y.sum()

    gc.disable()
    try:
        gj.grad(f)(X)
        assert alive[0]() is None
    finally:
        gc.enable()
    the_error(lambda: kept[0] + 1)


def test_no_line_is_read_before_it_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr("linecache.getline", lambda *args: asked.append(args) or "")
    leaked_by("grad")
    assert asked == []


def test_an_operation_asks_for_one_frame():
    """By counting, without a clock: calls of sys._getframe that 200 more operations make."""

    def calls(n):
        def f(x):
            for _ in range(n):
                x = np.sin(x) * 0.5
            return x.sum()

        count = 0

        def watch(frame, event, argument):
            nonlocal count
            count += event == "c_call" and argument is sys._getframe

        sys.setprofile(watch)
        try:
            gj.grad(f)(X)
        finally:
            sys.setprofile(None)
        return count

    calls(2)  # what is done once
    assert calls(101) - calls(1) == 200


@pytest.mark.parametrize("transform", [gj.grad, gj.vmap, gj.jacfwd], ids=["grad", "vmap", "jacfwd"])
def test_a_leaked_argument_names_the_function_that_it_was_an_argument_of(transform):
    kept = []

    def helper(y):
        return np.sin(y)

    def leaking(x):
        kept.append(x)
        return helper(x)

    transform(leaking)(np.ones(2) if transform is not gj.grad else 1.0)
    with pytest.raises(gj.LeakedTracerError, match=r"def leaking\(x\)"):
        kept[0] + 1.0


@pytest.mark.parametrize("refusal", [KeyError("mine"), MemoryError("full"), None])
@pytest.mark.parametrize("name", ["grad", "jvp", "vmap", "jacrev", "linear_transpose"])
def test_an_error_that_left_f_keeps_nothing_alive_once_it_is_handled(name, refusal):
    """Not even one that was put in the place of another: the arrays of f go with the error, with gc off."""
    calls = {"jvp": lambda f: gj.jvp(f, (X,), (X,)), "linear_transpose": lambda f: gj.linear_transpose(f, X)}
    alive = []

    def f(x):
        big = np.ones(3)
        alive.append(weakref.ref(big))
        if refusal is None:  # what NumPy makes of a[0] = x; explained as a MutationError
            raise ValueError("setting an array element with a sequence.") from gj.ConcretizationError("a value")
        raise type(refusal)(*refusal.args)

    gc.disable()
    try:
        with pytest.raises((KeyError, MemoryError, TypeError)):
            calls.get(name, lambda f: getattr(gj, name)(f)(X))(f)
        assert alive[-1]() is None
    finally:
        gc.enable()


class _WithoutCode:
    """A function that raises when it is asked for its code."""

    def __call__(self, x):
        return x

    @property
    def __code__(self):
        raise RuntimeError("no code")


@pytest.mark.parametrize(
    "call", [lambda f: gj.vmap(f)(X), lambda f: gj.jvp(f, (X,), (X,)), lambda f: gj.vjp(f, X), lambda f: gj.grad(f)(X)]
)
def test_a_function_that_cannot_be_looked_at_leaves_no_level_open(call):
    with pytest.raises(RuntimeError, match="no code"):
        call(_WithoutCode())
    assert not open_traces()
