"""Pytrees: order, matching by key, container types, prefixes, and messages that show the path."""

from collections import OrderedDict, defaultdict, deque
from typing import Any, NamedTuple

import numpy as np
import optree
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujac import trees
from gpujac.errors import ArgumentTypeError, RegistrationError, StructureError


class Point(NamedTuple):
    """A named tuple as users write them."""

    a: Any
    b: Any


class Box:
    """A user's container, registered below."""

    def __init__(self, left: Any, right: Any, label: str = "box") -> None:
        self.left, self.right, self.label = left, right, label


trees.register(
    Box,
    lambda box: ((box.left, box.right), box.label),
    lambda label, children: Box(*children, label),
    names=("left", "right"),
)

leaves_strategy = st.floats(allow_nan=False)
containers = st.recursive(
    leaves_strategy | st.none(),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.tuples(inside, inside)
        | st.dictionaries(st.sampled_from("abcd"), inside, max_size=3)
        | st.dictionaries(st.sampled_from("abcd"), inside, max_size=3).map(OrderedDict)
        | st.dictionaries(st.sampled_from("ab"), inside).map(lambda d: defaultdict(list, d))
        | st.lists(inside, max_size=2).map(lambda items: deque(items, maxlen=5))
        | st.tuples(inside, inside).map(lambda pair: Point(*pair))
    ),
    max_leaves=8,
)


def spec_of(tree):
    return trees.flatten(tree)[1]


# ---------------------------------------------------------------- flatten and unflatten


@pytest.mark.parametrize("leaf", [1.0, 2, 1j, True, np.ones(3), np.float32(1), np.int8(1), "text"])
def test_a_bare_leaf_has_the_one_leaf_spec(leaf):
    leaves, spec = trees.flatten(leaf)
    assert leaves[0] is leaf
    assert spec is trees.LEAF
    assert trees.unflatten(spec, leaves) is leaf


def test_the_fast_path_for_leaves_never_calls_optree(monkeypatch):
    monkeypatch.setattr(optree, "tree_flatten", None)
    monkeypatch.setattr(trees, "_LEAF_TYPES", {*trees._LEAF_TYPES, Point})
    assert trees.flatten(np.ones(2))[1] is trees.LEAF
    assert trees.flatten(1.0)[1] is trees.LEAF
    assert trees.match(trees.LEAF, 2.0, "x") == [2.0]


def test_mark_leaf_makes_a_type_fast(monkeypatch):
    class Array:
        pass

    monkeypatch.setattr(trees, "_LEAF_TYPES", set(trees._LEAF_TYPES))
    trees.mark_leaf(Array)
    monkeypatch.setattr(optree, "tree_flatten", None)
    assert trees.flatten(Array())[1] is trees.LEAF


def test_none_is_an_empty_subtree_in_data_and_a_leaf_at_the_other_door():
    assert trees.flatten((1.0, None))[0] == [1.0]
    assert trees.flatten_none((1.0, None))[0] == [1.0, None]
    assert trees.flatten(None)[0] == []
    assert not trees.is_leaf(spec_of(None))
    assert not trees.is_leaf(spec_of(()))
    assert trees.is_leaf(spec_of(object()))


def test_dict_leaves_come_by_sorted_key_and_ordered_dict_leaves_in_their_order():
    assert trees.flatten({"b": 1.0, "a": 2.0})[0] == [2.0, 1.0]
    assert trees.flatten(OrderedDict(b=1.0, a=2.0))[0] == [1.0, 2.0]


@given(containers)
def test_unflatten_undoes_flatten_with_the_same_container_types(tree):
    leaves, spec = trees.flatten(tree)
    again = trees.unflatten(spec, leaves)
    assert again == tree
    assert trees.describe(spec_of(again)) == trees.describe(spec)
    assert type(again) is type(tree)


def test_results_keep_key_order_default_factory_and_maxlen():
    tree = {"b": defaultdict(list, k=1.0), "a": deque([2.0], maxlen=3)}
    again = trees.unflatten(spec_of(tree), [5.0, 6.0])
    assert list(again) == ["b", "a"]
    assert again["b"].default_factory is list
    assert again["a"].maxlen == 3
    assert again == {"b": {"k": 6.0}, "a": deque([5.0])}


@given(containers)
def test_paths_are_aligned_with_leaves(tree):
    leaves, paths = trees.flatten(tree)[0], trees.flatten_paths(tree)
    assert len(paths) == len(leaves)
    for leaf, path in zip(leaves, paths, strict=True):
        assert eval(f"tree{path}", {"tree": tree}) is leaf


def test_paths_are_spelled_as_python():
    tree = ({"w": [1.0, 2.0]}, Point(3.0, None), Box(4.0, (5.0,)))
    assert trees.flatten_paths(tree) == [
        "[0]['w'][0]", "[0]['w'][1]", "[1].a", "[2].left", "[2].right[0]",
    ]  # fmt: skip
    assert trees.flatten_paths(1.0) == [""]


def test_describe_prints_the_structure_alone():
    assert trees.describe(trees.LEAF) == "*"
    assert trees.describe(spec_of((1.0, {"w": [2.0, None]}))) == "(*, {'w': [*, None]})"
    assert trees.describe(trees.flatten_none((None, 1))[1]) == "(*, *)"
    assert "namespace" not in trees.describe(spec_of(Box(1.0, 2.0)))


# ---------------------------------------------------------------- map and match


def test_map_takes_containers_from_the_first_tree():
    first = OrderedDict(y=1.0, x=Point(2.0, None))
    result = trees.map(lambda a, b: a + b, first, {"x": Point(20.0, None), "y": 10.0})
    assert result == OrderedDict(y=11.0, x=Point(22.0, None))
    assert type(result) is OrderedDict


def test_map_names_the_tree_that_differs():
    with pytest.raises(StructureError, match=r"^map: tree 3\[1\]: expected a leaf, found tuple\."):
        trees.map(lambda *leaves: leaves, [1.0, 2.0], [3.0, 4.0], [5.0, (6.0,)])


@pytest.mark.parametrize(
    "other",
    [
        {"a": 2.0, "b": 1.0},
        OrderedDict(b=1.0, a=2.0),
        OrderedDict(a=2.0, b=1.0),
        defaultdict(float, b=1.0, a=2.0),
    ],
)
@pytest.mark.parametrize(
    "reference", [{"b": 0.0, "a": 0.0}, OrderedDict(b=0, a=0), defaultdict(int, a=0, b=0)]
)
def test_mappings_match_by_key_whatever_order_and_class(reference, other):
    spec = spec_of(reference)
    leaves = trees.match(spec, other, "tangent")
    again = trees.unflatten(spec, leaves)
    assert (again["a"], again["b"]) == (2.0, 1.0)
    assert type(again) is type(reference)


@given(containers)
def test_a_tree_matches_its_own_structure(tree):
    leaves, spec = trees.flatten(tree)
    assert trees.match(spec, tree, "x") == leaves


REFERENCE = {"b": [1.0, 2.0], "a": (3.0, None), "p": Point(4.0, Box(5.0, 6.0))}


def changed(**parts):
    return {**REFERENCE, **parts}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (None, "ct: expected dict, found None."),
        (1.0, "ct: expected dict, found float."),
        (np.ones(2), "ct: expected dict, found ndarray."),
        ({"b": [1.0, 2.0]}, "ct: the missing keys are 'a', 'p'."),
        (changed(c=1.0), "ct: the extra key is 'c'."),
        ({"b": 1.0, "a": 1.0, "q": 1.0}, "ct: the missing key is 'p' and the extra key is 'q'."),
        (changed(b=(1.0, 2.0)), "ct['b']: expected list, found tuple."),
        (changed(b=[1.0]), "ct['b']: expected 2 entries, found 1."),
        (changed(b=[1.0, None]), "ct['b'][1]: expected a leaf, found None."),
        (changed(b=[1.0, {"k": 2.0}]), "ct['b'][1]: expected a leaf, found dict."),
        (changed(a=(3.0, 4.0)), "ct['a'][1]: expected None, found float."),
        (changed(p=(4.0, 5.0)), "ct['p']: expected Point, found tuple."),
        (changed(p=Point(4.0, Box(5.0, []))), "ct['p'].b.right: expected a leaf, found list."),
        (changed(p=Point(4.0, Box(5.0, 6.0, "tin"))), "ct['p'].b: the two Box objects differ"),
    ],
)
def test_a_mismatch_shows_its_path_and_both_structures(other, message):
    with pytest.raises(StructureError) as caught:
        trees.match(spec_of(REFERENCE), other, "ct")
    text = str(caught.value)
    assert text.startswith(message)
    assert f"Expected structure {trees.describe(spec_of(REFERENCE))}, found" in text
    assert text.endswith(f"found {trees.describe(spec_of(other))}.")


@pytest.mark.parametrize(
    ("reference", "other"),
    [((1.0,), [1.0]), ([1.0], (1.0,)), (Point(1.0, 2.0), (1.0, 2.0)), ((1.0, 2.0), Point(1.0, 2.0)),
     (1.0, (1.0,)), ((1.0,), 1.0), (1.0, None), (None, 1.0), ([], ()), (deque([1.0]), [1.0])],
)  # fmt: skip
def test_other_containers_never_match(reference, other):
    with pytest.raises(StructureError):
        trees.match(spec_of(reference), other, "x")


def test_messages_about_huge_trees_stay_short():
    with pytest.raises(StructureError) as caught:
        trees.match(spec_of([1.0] * 5000), [1.0] * 5001, "x")
    assert str(caught.value).startswith("x: expected 5000 entries, found 5001.")
    assert len(str(caught.value)) < 1500


# ---------------------------------------------------------------- prefixes

TREE = ({"w": 1.0, "b": [2.0, 3.0]}, Point(4.0, None))


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (0, [0, 0, 0, 0]),
        (None, [None] * 4),
        ((0, None), [0, 0, 0, None]),
        (({"b": 1, "w": None}, 2), [1, 1, None, 2]),
        ((OrderedDict(w=0, b=[1, None]), Point(-1, None)), [1, None, 0, -1]),
        ((None, Point(np.int64(3), 0)), [None, None, None, 3]),
    ],
)
def test_broadcast_prefix_gives_one_entry_per_leaf(prefix, expected):
    assert trees.broadcast_prefix(prefix, TREE, "in_dims") == expected
    assert trees.broadcast_prefix(prefix, spec_of(TREE), "in_dims") == expected


@given(containers, st.integers(-3, 3) | st.none())
def test_a_full_prefix_returns_its_own_entries(tree, entry):
    prefix = trees.map(lambda _: entry, tree)
    assert trees.broadcast_prefix(prefix, tree, "in_dims") == [entry] * spec_of(tree).num_leaves


@pytest.mark.parametrize(
    ("prefix", "error", "message"),
    [
        ([0, None], StructureError, "vmap: in_dims: expected tuple, found list."),
        ((0,), StructureError, "vmap: in_dims: expected 2 entries, found 1."),
        ((0, (1, 2)), StructureError, "vmap: in_dims[1]: expected Point, found tuple."),
        (({"w": 0}, 0), StructureError, "vmap: in_dims[0]: the missing key is 'b'."),
        (({"w": (0,), "b": 0}, 0), StructureError, "vmap: in_dims[0]['w']: expected a leaf, found"),
        (1.5, ArgumentTypeError, "vmap: in_dims=1.5 has type float; use an int, or None."),
        ((True, 0), ArgumentTypeError, "vmap: in_dims[0]=True has type bool; use an int, or None."),
        ((0, Point("x", 0)), ArgumentTypeError, "vmap: in_dims[1].a='x' has type str; use an int"),
    ],
)
def test_a_wrong_prefix_shows_its_path(prefix, error, message):
    with pytest.raises(error) as caught:
        trees.broadcast_prefix(prefix, TREE, "vmap: in_dims")
    assert str(caught.value).startswith(message)


# ---------------------------------------------------------------- registration


def test_a_registered_container_passes_through_every_function():
    box = Box([1.0, 2.0], None, "tin")
    leaves, spec = trees.flatten(box)
    assert leaves == [1.0, 2.0]
    again = trees.map(lambda leaf: leaf * 2, box)
    assert (again.left, again.right, again.label) == ([2.0, 4.0], None, "tin")
    assert trees.broadcast_prefix(Box(0, 1, "tin"), box, "in_dims") == [0, 0]
    assert trees.match(spec, again, "x") == [2.0, 4.0]


def test_a_container_registered_without_names_shows_positions():
    class Bare:
        def __init__(self, *parts):
            self.parts = parts

    trees.register(Bare, lambda bare: (bare.parts, None), lambda _, parts: Bare(*parts))
    assert len(trees.flatten_paths(Bare(1.0, 2.0))) == 2
    with pytest.raises(StructureError, match="expected 2 entries, found 1"):
        trees.match(spec_of(Bare(1.0, 2.0)), Bare(1.0), "x")


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Box, "register: Box is a container already."),
        (dict, "register: dict is a container already."),
        (np.ndarray, "register: ndarray is an array or number, always a leaf."),
        (3, "register: expected a class and two functions, found 3"),
    ],
)
def test_registration_is_refused_with_the_reason(cls, message):
    with pytest.raises(RegistrationError) as caught:
        trees.register(cls, lambda box: ((), None), lambda _, children: None)
    assert str(caught.value).startswith(message)
