"""The wording of errors: what was asked, what was found, what to do; the class a user would catch."""

import numpy as np
import pytest
from numpy import asarray

import gpujac as gj

X = np.array([1.0, 2.0, 3.0])
Z = X + 1j
REVERSE = {"grad": gj.grad, "value_and_grad": gj.value_and_grad}
JACOBIANS = {"jacrev": gj.jacrev, "jacfwd": gj.jacfwd, "jacobian": gj.jacobian, "hessian": gj.hessian}
SELECTING = {**REVERSE, **JACOBIANS}
every_selecting = pytest.mark.parametrize("name", list(SELECTING))
every_jacobian = pytest.mark.parametrize("name", list(JACOBIANS))


def refused(error, builtin, match):
    """The library's class, the builtin it stands for, and its words."""
    assert issubclass(error, builtin)
    assert issubclass(error, gj.GpujacError)
    return pytest.raises(error, match=match)


# ---------------------------------------------------------------- selection (E1 to E5)


@every_selecting
@pytest.mark.parametrize("argnums", [[0], 0.0, None, "0", True, {0}])
def test_argnums_of_a_wrong_type(name, argnums):
    kind = type(argnums).__name__
    with refused(gj.ArgumentTypeError, TypeError, rf"^{name}: argnums=.* is a {kind}; give an int or a tuple"):
        SELECTING[name](np.sum, argnums)


@every_selecting
@pytest.mark.parametrize("argnums", [(0, 1.0), (0, (1,)), (True,), ("0",), (None,)])
def test_an_entry_of_argnums_of_a_wrong_type(name, argnums):
    with refused(gj.ArgumentTypeError, TypeError, rf"^{name}: argnums=.* is no int"):
        SELECTING[name](np.sum, argnums)


@every_selecting
def test_empty_argnums(name):
    with refused(gj.ArgumentError, ValueError, rf"^{name}: argnums=\(\) is empty; name at least one"):
        SELECTING[name](np.sum, ())


@every_selecting
@pytest.mark.parametrize("argnums", [2, -3, (0, 2), (-3,)])
def test_argnums_out_of_range(name, argnums):
    words = rf"^{name}: argnums=.*f got only 2 positional arguments; keyword arguments cannot be selected"
    with refused(gj.ArgnumsRangeError, ValueError, words):
        SELECTING[name](lambda x, y: (x * y).sum(), argnums)(X, X)
    assert issubclass(gj.ArgnumsRangeError, IndexError)


@every_selecting
def test_keyword_arguments_cannot_be_selected(name):
    with refused(gj.ArgnumsRangeError, ValueError, "f got only 0 positional arguments"):
        SELECTING[name](lambda x: x.sum())(x=X)


@every_selecting
def test_duplicate_argnums_after_wrapping(name):
    with refused(gj.ArgumentError, ValueError, rf"^{name}: argnums=\(0, -2\) names argument 0 twice"):
        SELECTING[name](lambda x, y: (x * y).sum(), (0, -2))(X, X)
    with refused(gj.ArgumentError, ValueError, r"argnums=\(1, 0, 0\) names argument 0 twice; name each once"):
        SELECTING[name](lambda x, y: (x * y).sum(), (1, 0, 0))(X, X)


# ---------------------------------------------------------------- leaves (E6, E7, E30, E31)


def calls_on(x):
    """Every transform on a point that holds `x`, as (name in messages, call)."""
    tree = {"w": [X, x]}
    f = lambda t: t["w"][0].sum()
    yield from ((name, lambda t=t: t(f)(tree)) for name, t in SELECTING.items())
    yield "vjp", lambda: gj.vjp(f, tree)
    yield "linearize", lambda: gj.linearize(f, tree)
    yield "jvp", lambda: gj.jvp(f, (tree,), (tree,))
    yield "linear_transpose", lambda: gj.linear_transpose(f, tree)


@pytest.mark.parametrize("x", ["text", object(), slice(1)], ids=["str", "object", "slice"])
def test_a_leaf_that_is_no_array_is_named_by_its_path(x):
    for name, call in calls_on(x):
        words = rf"^{name}: args\[0\]\['w'\]\[1\] is a {type(x).__name__}, not an array or a number"
        with refused(gj.ArgumentTypeError, TypeError, words):
            call()


@pytest.mark.parametrize(
    "x", [3, True, np.int32(3), np.arange(3), X > 1], ids=["int", "bool", "int32", "ints", "bools"]
)
def test_integers_carry_no_derivative(x):
    for name, call in calls_on(x):
        dtype = np.asarray(x).dtype
        without = name in ("vjp", "jvp", "linearize", "linear_transpose")
        cure = r"keep it out of the primals, as in lambda u: f\(u, p\)" if without else "leave it out of argnums"
        words = rf"^{name}: args\[0\]\['w'\]\[1\] has dtype {dtype}: .*{cure}"
        with refused(gj.DTypeError, TypeError, words):
            call()


@pytest.mark.parametrize("x", [np.array(["a"]), np.array([object()]), np.array(["2020-01-01"], "M8[D]")],
                         ids=["strings", "objects", "dates"])  # fmt: skip
def test_arrays_without_numbers_are_refused(x):
    for _, call in calls_on(x):
        with refused(gj.DTypeError, TypeError, r"args\[0\]\['w'\]\[1\]: dtype .* is not numeric"):
            call()


def test_something_that_is_no_function():
    for name in [*SELECTING, "vmap"]:
        with refused(
            gj.ArgumentTypeError, TypeError, f"^{name}: the first argument must be a function, not int"
        ):
            getattr(gj, name)(3)
    for call in (lambda: gj.vjp(3, X), lambda: gj.jvp(3, (X,), (X,)), lambda: gj.linearize(None, X),
                 lambda: gj.linear_transpose("f", X)):  # fmt: skip
        with refused(gj.ArgumentTypeError, TypeError, "must be a function"):
            call()


# ---------------------------------------------------------------- jvp, vjp, linearize (E8 to E18)


def test_primals_and_tangents_must_be_tuples():
    with refused(gj.ArgumentTypeError, TypeError, r"^jvp: primals must be a tuple, not \w+rray; write \(x,\)"):
        gj.jvp(np.sin, X, X)
    with refused(gj.ArgumentTypeError, TypeError, r"^jvp: primals must be a tuple, not list"):
        gj.jvp(np.sin, [X], [X])
    with refused(gj.ArgumentTypeError, TypeError, r"^jvp: tangents must be a tuple, not list; write \(t,\)"):
        gj.jvp(np.sin, (X,), [X])


def test_tangents_that_do_not_match():
    f = lambda p, y: p["a"] * y
    with refused(gj.StructureError, ValueError, "^jvp: 1 tangents for 2 primals"):
        gj.jvp(f, ({"a": X}, X), ({"a": X},))
    with refused(
        gj.StructureError, ValueError, r"^jvp: tangents\[0\]: the missing key is 'a' and the extra key is 'b'"
    ):
        gj.jvp(f, ({"a": X}, X), ({"b": X}, X))
    with refused(gj.StructureError, ValueError, r"^jvp: tangents\[1\]: expected a leaf, found list"):
        gj.jvp(f, ({"a": X}, X), ({"a": X}, [X]))
    words = r"^jvp: tangents\[0\]\['a'\] has shape \(2,\), but args\[0\]\['a'\] has \(3,\); shapes must"
    with refused(gj.ShapeError, ValueError, words):
        gj.jvp(f, ({"a": X}, X), ({"a": X[:2]}, X))
    with refused(gj.ShapeError, ValueError, r"shape \(\), but"):
        gj.jvp(np.sin, (X,), (1.0,))
    with refused(gj.ArgumentTypeError, TypeError, r"^jvp: tangents\[0\] is a str"):
        gj.jvp(np.sin, (X,), ("t",))
    words = r"^jvp: tangents\[0\] is complex128, but args\[0\] is float64; take its real part"
    with refused(gj.DTypeError, TypeError, words):
        gj.jvp(np.sin, (X,), (Z,))


def test_cotangents_that_do_not_match():
    _, pullback = gj.vjp(lambda x: {"y": x, "s": x.sum()}, X)
    with refused(
        gj.StructureError, ValueError, r"^vjp: cotangent: expected dict, found \w+rray\. Expected structure \{"
    ):
        pullback(X)
    with refused(gj.StructureError, ValueError, "^vjp: cotangent: the missing key is 's'"):
        pullback({"y": X})
    with refused(gj.ShapeError, ValueError, r"^vjp: cotangent\['y'\] has shape \(1, 3\), but output\['y'\] has \(3,\)"):
        pullback({"y": X[None], "s": 1.0})
    with refused(gj.StructureError, ValueError, r"^vjp: cotangent\['s'\]: expected a leaf, found None"):
        pullback({"y": X, "s": None})
    with refused(gj.DTypeError, TypeError, r"^vjp: cotangent\['y'\] is complex128, but output\['y'\] is float64; take"):
        pullback({"y": Z, "s": 1.0})
    with pytest.raises(TypeError, match="positional argument"):
        pullback(X, X)


def test_a_list_is_no_tuple():
    _, pullback = gj.vjp(lambda x: (x,), X)
    with refused(gj.StructureError, ValueError, "expected tuple, found list"):
        pullback([X])


def test_a_linear_map_refuses_what_jvp_refuses():
    _, lin = gj.linearize(lambda p: p["a"], {"a": X})
    with refused(gj.StructureError, ValueError, r"^linearize: tangents\[0\]: the missing key is 'a'"):
        lin({})
    with refused(gj.ShapeError, ValueError, r"^linearize: tangents\[0\]\['a'\] has shape \(1,\)"):
        lin({"a": X[:1]})


def test_keyword_arguments_of_vjp_jvp_and_linearize():
    for call in (lambda: gj.vjp(np.sin, X, k=1), lambda: gj.jvp(np.sin, (X,), (X,), k=1),
                 lambda: gj.linearize(np.sin, X, k=1)):  # fmt: skip
        with pytest.raises(TypeError, match="unexpected keyword"):
            call()


# ---------------------------------------------------------------- outputs (E20 to E29)


def calls_of(f):
    """Every transform that differentiates `f` at X."""
    yield from ((name, lambda t=t: t(f)(X)) for name, t in JACOBIANS.items())
    yield "vjp", lambda: gj.vjp(f, X)
    yield "jvp", lambda: gj.jvp(f, (X,), (X,))
    yield "linearize", lambda: gj.linearize(f, X)


@pytest.mark.parametrize("empty", [None, (), {}, [None]], ids=str)
def test_an_output_without_arrays(empty):
    for name, call in calls_of(lambda x: empty):
        with refused(gj.StructureError, ValueError, f"^{name}: .*holds no array; did it forget to return"):
            call()


def test_an_output_leaf_that_is_no_array():
    for name, call in calls_of(lambda x: {"y": x, "label": "text"}):
        words = rf"^{name}: output\['label'\] is a str, not an array or a number; return extra results through has_aux"
        with refused(gj.ArgumentTypeError, TypeError, words):
            call()


@pytest.mark.parametrize(
    "f", [lambda x: (x, x > 1), lambda x: (x, np.argmax(x)), lambda x: (x, 3), lambda x: (x, True)]
)
def test_integer_outputs_are_refused_where_a_basis_or_a_cotangent_is_needed(f):
    for name, call in calls_of(f):
        if name in ("jvp", "linearize"):
            call()  # their tangent is a zero of that dtype
            continue
        with refused(gj.DTypeError, TypeError, rf"^{name}: output\[1\] has dtype (bool|int64): .*has_aux=True"):
            call()


@pytest.mark.parametrize("name", list(REVERSE))
def test_the_output_of_grad_is_one_real_scalar(name):
    transform, name = REVERSE[name], name
    with refused(
        gj.ShapeError, ValueError, rf"^{name}: .*scalar of shape \(\), not \(3,\); reduce it with .sum\(\), or use vjp"
    ):
        transform(lambda x: x)(X)
    with refused(gj.ShapeError, ValueError, r"not \(1,\)"):
        transform(lambda x: x[:1])(X)
    with refused(gj.StructureError, ValueError, rf"^{name}: .*one scalar, not \(\*,\)"):
        transform(lambda x: (x.sum(),))(X)
    with refused(gj.StructureError, ValueError, "has_aux=True"):
        transform(lambda x: (x.sum(), x))(X)
    with refused(gj.DTypeError, TypeError, f"^{name}: the output is complex128; .*holomorphic=True"):
        transform(lambda z: z.sum())(Z)
    with refused(gj.DTypeError, TypeError, f"^{name}: the output has dtype int64, which has no derivative"):
        transform(lambda x: 3)(X)
    with refused(gj.ArgumentTypeError, TypeError, f"^{name}: output is a str"):
        transform(lambda x: "text")(X)
    with refused(gj.StructureError, ValueError, f"^{name}: the function returned None"):
        transform(lambda x: None)(X)


@pytest.mark.parametrize(
    "result", [lambda x: x.sum(), lambda x: [x.sum(), 1], lambda x: (x.sum(), 1, 2), lambda x: (x.sum(),)]
)
def test_has_aux_needs_a_pair(result):
    names = {"vjp": lambda f: gj.vjp(f, X, has_aux=True), "jvp": lambda f: gj.jvp(f, (X,), (X,), has_aux=True),
             "linearize": lambda f: gj.linearize(f, X, has_aux=True)}  # fmt: skip
    for name, transform in SELECTING.items():
        names[name] = lambda f, t=transform: t(f, has_aux=True)(X)
    for name, call in names.items():
        words = rf"^{name}: with has_aux=True the function must return a tuple \(output, aux\), not "
        with refused(gj.StructureError, ValueError, words):
            call(result)


@pytest.mark.parametrize("name", ["value_and_grad", "grad_and_value"])
def test_transforms_without_the_option_name_the_one_that_has_it(name):
    with refused(gj.DTypeError, TypeError, f"^{name}: the output is complex128; .*use grad with holomorphic=True"):
        getattr(gj, name)(lambda z: z.sum())(Z)


def test_integers_in_transforms_without_argnums_are_told_to_stay_out():
    calls = [lambda x: gj.hvp(np.sum, (x,), (X,)), lambda x: gj.ggn_vp(np.sin, np.sum, (x,), (X,))]
    for call in calls:
        with refused(gj.DTypeError, TypeError, r"args\[0\] has dtype int64.* keep it out of the primals"):
            call(np.arange(3))


def test_a_value_error_of_the_users_own_is_no_write():
    """One that f raises from a refused float() stays what it is; NumPy's a[0] = x does not."""

    def f(x):
        try:
            return float(x)
        except TypeError as error:
            raise ValueError("my own message") from error

    def write(x):
        np.zeros(3)[0] = x

    calls = [lambda g: gj.grad(g)(1.0), lambda g: gj.jacfwd(g)(1.0), lambda g: gj.linearize(g, 1.0),
             lambda g: gj.jvp(g, (1.0,), (1.0,)), lambda g: gj.vmap(g)(np.ones(1))]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match="my own message"):
            call(f)
        with refused(gj.MutationError, TypeError, "in-place write"):
            call(write)


@every_jacobian
def test_complex_functions_need_holomorphic(name):
    transform = JACOBIANS[name]
    with refused(gj.DTypeError, TypeError, rf"^{name}: args\[0\] is complex128; .*ambiguous"):
        transform(lambda z: z * z)(Z)
    with refused(gj.DTypeError, TypeError, rf"^{name}: output is complex128"):
        transform(lambda x: x * 1j)(X)
    if name == "hessian":
        return
    with refused(gj.DTypeError, TypeError, f"^{name}: .* is float64, but holomorphic=True needs complex inputs"):
        transform(lambda x: x * 1j, holomorphic=True)(X)


# ---------------------------------------------------------------- options (E40 to E43)


@every_jacobian
@pytest.mark.parametrize("size", [0, -1, -100])
def test_a_chunk_size_below_one_is_refused_when_built(name, size):
    with refused(gj.ArgumentError, ValueError, rf'^{name}: chunk_size={size} must be at least 1, None or "auto"'):
        JACOBIANS[name](np.sin, chunk_size=size)


@every_jacobian
@pytest.mark.parametrize("size", ["3", 1.5, True, (1,), "Auto"])
def test_a_chunk_size_of_a_wrong_type_is_refused_when_built(name, size):
    with refused(gj.ArgumentTypeError, TypeError, rf"^{name}: chunk_size=.* is a {type(size).__name__}; give an int"):
        JACOBIANS[name](np.sin, chunk_size=size)


@every_jacobian
def test_other_options(name):
    transform = JACOBIANS[name]
    with refused(gj.ArgumentError, ValueError, f'^{name}: assembly=\'copy\'; choose "auto", "stack" or "preallocate"'):
        transform(np.sin, assembly="copy")
    with refused(gj.ArgumentError, ValueError, f"^{name}: memory='lots' is not a size"):
        transform(np.sin, memory="lots")
    with refused(gj.ArgumentTypeError, TypeError, "memory="):
        transform(np.sin, memory=[1])


def test_the_mode_of_jacobian():
    with refused(gj.ArgumentError, ValueError, '^jacobian: mode=\'reverse\'; choose "auto", "rev" or "fwd"'):
        gj.jacobian(np.sin, mode="reverse")


def test_inner_chunk_size():
    with refused(gj.ArgumentError, ValueError, "^hessian: inner_chunk_size=0 must be at least 1"):
        gj.hessian(np.sin, inner_chunk_size=0)
    with refused(gj.ArgumentTypeError, TypeError, "^hessian: inner_chunk_size='x' is a str"):
        gj.hessian(np.sin, inner_chunk_size="x")


# ---------------------------------------------------------------- vmap (E41 to E43, E50 to E66)


@pytest.mark.parametrize("size", [0, -2])
def test_vmap_chunk_size_below_one(size):
    with refused(gj.ArgumentError, ValueError, f"^vmap: chunk_size={size} must be at least 1, or None"):
        gj.vmap(np.sin, chunk_size=size)


@pytest.mark.parametrize("size", [1.5, "2", True])
def test_vmap_chunk_size_of_a_wrong_type(size):
    with refused(gj.ArgumentTypeError, TypeError, "^vmap: chunk_size=.* is no integer; give an int or None"):
        gj.vmap(np.sin, chunk_size=size)


def test_vmap_randomness_and_method():
    with refused(gj.ArgumentError, ValueError, "^vmap: randomness='maybe': choose from"):
        gj.vmap(np.sin, randomness="maybe")
    with refused(gj.ArgumentError, ValueError, "^vmap: method='map' is neither 'batch' nor 'loop'"):
        gj.vmap(np.sin, method="map")
    with refused(gj.ArgumentError, ValueError, "^vmap: axis_size=-1"):
        gj.vmap(np.sin, axis_size=-1)


@pytest.mark.parametrize("in_dims", [0.0, "0", {0}, True, {"a": 0}])
def test_in_dims_of_a_wrong_type(in_dims):
    with refused(gj.ArgumentTypeError, TypeError, "^vmap: in_dims=.* give an int or a tuple"):
        gj.vmap(np.sin, in_dims)


def test_in_dims_of_a_wrong_structure():
    f = lambda p, y: p["a"] * y[0]
    args = {"a": X}, [X, X]
    for in_dims, words in [
        ((0,), "expected 2 entries, found 1"),
        ((0, 0, 0), "expected 2 entries, found 3"),
        (({"b": 0}, 0), r"in_dims\[0\]: the missing key is 'a' and the extra key is 'b'"),
        ((0, (0, 0)), r"in_dims\[1\]: expected list, found tuple"),
        (({"a": [0]}, 0), r"in_dims\[0\]\['a'\]"),
    ]:
        with refused(gj.StructureError, ValueError, words):
            gj.vmap(f, in_dims)(*args)
    for bad in ("x", 0.5, True):
        with refused(gj.ArgumentTypeError, TypeError, r"in_dims\[0\].*use an int, or None"):
            gj.vmap(f, (bad, 0))(*args)


def test_in_dims_on_what_has_no_such_axis():
    with refused(
        gj.AxisError,
        IndexError,
        r"^vmap: in_dims=2, but leaf args\[0\]\['w'\] has shape \(3, 4\); use -2 to 1, or None to leave it unmapped",
    ):
        gj.vmap(lambda p: p["w"], in_dims=2)({"w": np.ones((3, 4))})
    with refused(gj.AxisError, ValueError, r"in_dims=-3, but leaf args\[0\] has shape \(3, 4\)"):
        gj.vmap(np.sin, -3)(np.ones((3, 4)))
    with refused(gj.AxisError, IndexError, r"in_dims=0, but leaf args\[1\] has shape \(\); use None"):
        gj.vmap(lambda x, y: x, (0, 0))(X, 2.0)
    with refused(
        gj.ArgumentTypeError, TypeError, r"in_dims=0, but leaf args\[1\]\[0\] is a str, not an array; use None"
    ):
        gj.vmap(lambda x, y: x)(X, ["text"])


def test_sizes_that_differ():
    words = r"^vmap: mapped axes must have the same size, found 3 in args\[0\], 2 in args\[1\]\['b'\]"
    with refused(gj.ShapeError, ValueError, words):
        gj.vmap(lambda x, p: x)(X, {"b": X[:2]})
    with refused(gj.ShapeError, ValueError, "^vmap: axis_size=4, but the mapped axes have size 3"):
        gj.vmap(np.sin, axis_size=4)(X)


@pytest.mark.parametrize("call", [lambda: gj.vmap(lambda: 1.0)(), lambda: gj.vmap(np.sin, None)(X),
                                  lambda: gj.vmap(lambda x: x, (None,))(X), lambda: gj.vmap(lambda x: 1.0)(x=X),
                                  lambda: gj.vmap(lambda p: 1.0)({})])  # fmt: skip
def test_nothing_mapped(call):
    with refused(gj.ArgumentError, ValueError, "^vmap: nothing is mapped: .*axis_size"):
        call()


def test_out_dims_that_do_not_fit():
    pair = lambda x: (x, x)
    for f, out_dims, words in [
        (pair, (0,), "expected 2 entries, found 1"),
        (pair, (0, 0, 0), "expected 2 entries, found 3"),
        (pair, [0, 0], "expected tuple, found list"),
        (lambda x: [x, x], (0, 0), "expected list, found tuple"),
        (lambda x: {"a": x}, {"b": 0}, "missing key is 'a'"),
    ]:
        with refused(gj.StructureError, ValueError, f"^vmap: out_dims.*{words}"):
            gj.vmap(f, out_dims=out_dims)(X)
    for bad in ("0", 0.5, True):
        with refused(gj.ArgumentTypeError, TypeError, "^vmap: out_dims.*use an int, or None"):
            gj.vmap(np.sin, out_dims=bad)(X)
    with refused(gj.AxisError, IndexError, r"^vmap: out_dims=2, but output\[1\] has 1 axes; use -1 to 0"):
        gj.vmap(pair, out_dims=(0, 2))(X)
    np.testing.assert_array_equal(gj.vmap(np.sin, out_dims=(0,))(X), np.sin(X))


def test_outputs_that_cannot_be_mapped():
    with refused(gj.StructureError, ValueError, r"^vmap: out_dims=None for output\[1\], but it differs between lanes"):
        gj.vmap(lambda x: (x, x), out_dims=(0, None))(X)
    with refused(
        gj.ArgumentTypeError, TypeError, r"^vmap: output\['t'\] is a str, not an array; use out_dims=None for it"
    ):
        gj.vmap(lambda x: {"y": x, "t": "text"})(X)


def test_dynamic_shapes_under_vmap():
    batch = np.stack([X, -X])
    with refused(gj.ConcretizationError, TypeError, "boolean mask that differs between the lanes.*where"):
        gj.vmap(lambda x: x[x > 0])(batch)
    for f in (lambda x: np.nonzero(x), lambda x: np.where(x > 0), lambda x: np.argwhere(x), lambda x: np.unique(x)):
        with refused(gj.GpujacError, Exception, "where|not supported"):
            gj.vmap(lambda x, f=f: (f(x), x)[1])(batch)


def test_a_slice_that_ends_at_a_mapped_value():
    with refused(gj.ConcretizationError, TypeError, "one value per lane.*where"):
        gj.vmap(lambda x: np.arange(3.0)[: x.sum().astype(int)])(np.stack([X, X]))


# ---------------------------------------------------------------- escapes and leaks (E70, E80)


LEAKS = {
    "add": lambda x: x + 1,
    "sin": np.sin,
    "sum": lambda x: x.sum(),
    "index": lambda x: x[0],
    "stack": lambda x: np.stack([x, x]),
    "matmul": lambda x: x @ x,
    "compare": lambda x: x > 0,
    "where": lambda x: np.where(True, x, 0.0),
    "value": gj.value,
    "asarray": asarray,
    "item": lambda x: x.item(0),
    "write": lambda x: x.__setitem__(0, 1.0),
}


@pytest.mark.parametrize("use", list(LEAKS))
@pytest.mark.parametrize("transform", [gj.grad, gj.jacfwd, gj.jacrev, gj.hessian, gj.vmap])
def test_a_leaked_array_says_where_it_was_made(transform, use):
    kept = []

    def model(x):
        kept.append(x)
        return (x * x).sum()

    transform(model)(np.stack([X, X]) if transform is gj.vmap else X)
    with refused(gj.LeakedTracerError, RuntimeError, "escaped from .* of model.*has_aux"):
        LEAKS[use](kept[0])


def test_leaks_of_jvp_linearize_and_linear_transpose():
    for call in (lambda f: gj.jvp(f, (X,), (X,)), lambda f: gj.linearize(f, X),
                 lambda f: gj.linear_transpose(f, X), lambda f: gj.vjp(f, X)):  # fmt: skip
        kept = []
        call(lambda x, kept=kept: (kept.append(x), 2 * x)[1])
        with refused(gj.LeakedTracerError, RuntimeError, "escaped from"):
            kept[0] + 1


def test_a_leak_into_a_later_transform_is_found():
    kept = []
    gj.grad(lambda x: (kept.append(x), x.sum())[1])(X)
    with refused(gj.LeakedTracerError, RuntimeError, "escaped from"):
        gj.grad(lambda x: (x * kept[0]).sum())(X)


def test_messages_name_the_transform_that_was_called():
    for name, transform in JACOBIANS.items():
        with pytest.raises(gj.DTypeError, match=f"^{name}:"):
            transform(np.sin)(3)
    for name, transform in {**REVERSE, "grad_and_value": gj.grad_and_value}.items():
        with pytest.raises(gj.DTypeError, match=f"^{name}:"):
            transform(np.sin)(3)
