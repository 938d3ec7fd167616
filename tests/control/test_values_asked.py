"""What asks for one value under vmap is an error that names the user's line and the way out."""

import linecache
import re

import numpy as np
import pytest

import gpujac as gj

X = np.array([1.0, 2.0])


def if_(x):
    if x > 0:  # here
        return x
    return -x


def while_(x):
    while x < 10:  # here
        x = x * x
    return x


def int_(x):
    return x * int(x)  # here


def item(x):
    return x * x.item()  # here


def float_(x):
    return x * float(x)  # here


def complex_(x):
    return x * complex(x)  # here


def arange(x):
    return np.zeros_like(x) + sum(range(x.astype(int)))  # here


def slice_(x):
    return (x + np.ones(3))[: x.astype(int)]  # here


def mask_index(x):
    y = np.stack([x, x])
    return y[y > 0]  # here


def mask_of_some_axes(x):
    y = np.stack([np.stack([x, x]), np.stack([x, -x])])
    return y[:, x + np.zeros(2) > 0]  # here


def nonzero(x):
    return np.nonzero(np.stack([x, x]))[0]  # here


def where_positions(x):
    return np.where(np.stack([x, -x]) > 0)[0]  # here


def unique(x):
    return np.flatnonzero(np.stack([x, x]))  # here


def compress(x):
    y = np.stack([x, x])
    return np.compress(y > 0, y)  # here


def number(x):
    return gj.value(x)  # here


def max_of_two(x):
    return max(x, 0.0)  # here


def as_an_array(x):
    return np.asarray(x)  # here


def in_a_helper(x):
    return if_(x)


# Rows E63 to E66 of the errors that torch.func has, and their kin.
ASKING = {
    "E63 item": item, "E63 float": float_, "E63 int": int_, "E63 range": arange, "E63 slice": slice_,
    "E63 complex": complex_, "E64 if": if_, "E64 while": while_, "E64 max": max_of_two, "E65 nonzero": nonzero,
    "E65 compress": compress, "E65 where": where_positions, "E65 flatnonzero": unique, "E66 mask": mask_index,
    "E66 mask of some axes": mask_of_some_axes, "value": number, "helper": in_a_helper,
}  # fmt: skip
every_case = pytest.mark.parametrize("f", ASKING.values(), ids=list(ASKING))


def line_of(f):
    """The marked line of a function of this file: its number and text."""
    code = (if_ if f is in_a_helper else f).__code__
    for number in range(code.co_firstlineno, code.co_firstlineno + 6):
        text = linecache.getline(code.co_filename, number)
        if "# here" in text:
            return number, text.strip()
    raise AssertionError(f"no marked line in {f.__name__}")


@every_case
@pytest.mark.parametrize(
    "wrap", [lambda f: f, gj.jacrev, gj.jacfwd, gj.vmap], ids=["plain", "jacrev", "jacfwd", "vmap"]
)
def test_the_error_names_the_users_line(f, wrap):
    number, text = line_of(f)
    mapped = gj.vmap(gj.vmap(f)) if wrap is gj.vmap else gj.vmap(wrap(f))
    with pytest.raises(gj.ConcretizationError) as caught:
        mapped(X[None] if wrap is gj.vmap else X)
    message = str(caught.value)
    assert f"line {number}, in " in message, message
    assert text in message
    assert "test_values_asked.py" in message


@every_case
def test_the_error_points_to_a_way_out(f):
    with pytest.raises(gj.ConcretizationError) as caught:
        gj.vmap(f)(X)
    assert re.search(r"gpujac\.cond|np\.where|gpujac\.numpy\.where", str(caught.value))
    if f is while_:
        assert "gpujac.while_loop" in str(caught.value)
    if f in (nonzero, where_positions, unique):
        assert str(caught.value).startswith("nonzero: the shape of the result depends on values")
    if f is slice_:
        assert "gpujac.control.dynamic_slice" in str(caught.value)


@pytest.mark.parametrize("wrap", [lambda f: f, gj.jacfwd, gj.grad])
def test_an_array_of_another_kind_is_asked_for_with_the_same_answer(wrap):
    number, text = line_of(as_an_array)
    with pytest.raises(gj.ConcretizationError) as caught:
        gj.vmap(wrap(as_an_array))(X)
    assert f"line {number}, in as_an_array: {text}" in str(caught.value)


def test_a_mapped_integer_as_an_index_is_no_question():
    table = np.arange(4.0) + 1
    found = gj.vmap(lambda t, i: t[i] * i, in_dims=(None, 0))(table, np.array([0, 3, 2]))
    np.testing.assert_array_equal(found, [0.0, 12.0, 6.0])


def test_what_does_not_differ_between_lanes_has_a_value():
    f = lambda x, n: x * int(n) if n > 1 else x
    np.testing.assert_array_equal(gj.vmap(f, in_dims=(0, None))(X, np.array(3.0)), 3 * X)
