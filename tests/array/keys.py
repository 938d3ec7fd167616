"""Random shapes and index keys: ints, slices, None, Ellipsis, integer arrays, boolean masks."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)


def values(shape, seed=0):
    """Distinct numbers of a shape."""
    rng = np.random.default_rng(seed)
    return rng.permutation(int(np.prod(shape))).reshape(shape) + rng.uniform(0.1, 0.4, shape)


@st.composite
def basic_keys(draw, shape):
    """A basic key; sometimes a bare entry instead of a tuple."""
    return draw(hnp.basic_indices(shape, max_dims=5, allow_newaxis=True, allow_ellipsis=True))


def _slices(n):
    bounds = st.one_of(st.none(), st.integers(-n - 1, n + 1))
    steps = st.sampled_from([None, 1, 2, -1, -2])
    return st.builds(slice, bounds, bounds, steps)


@st.composite
def advanced_keys(draw, shape):
    """A key with at least one index array among ints, slices, None and an Ellipsis."""
    wide = draw(st.sampled_from([(), (1,), (2,), (3,), (2, 1), (2, 2)]))
    at = draw(st.integers(0, len(shape) - 1))
    key = []
    for axis, n in enumerate(shape):
        choice = "array" if axis == at else draw(st.sampled_from("array slice int mask".split()))
        if choice == "mask" and (len(wide) > 1 or n == 0):
            choice = "slice"
        if choice == "array":
            rank = draw(st.integers(0, len(wide))) if axis != at else len(wide)
            tail = wide[len(wide) - rank :]
            flat = draw(st.lists(st.integers(-n, n - 1), min_size=int(np.prod(tail)), max_size=int(np.prod(tail))))
            key.append(np.array(flat, int).reshape(tail))
        elif choice == "mask":
            count = wide[0] if wide else 1
            mask = np.zeros(n, bool)
            mask[draw(st.permutations(range(n)))[:count]] = True
            key.append(mask if mask.sum() in (1, count) else slice(None))
        elif choice == "int":
            key.append(draw(st.integers(-n, n - 1)))
        else:
            key.append(draw(_slices(n)))
    if draw(st.booleans()):
        key.insert(draw(st.integers(0, len(key))), None)
    if draw(st.booleans()):
        cut = draw(st.integers(0, len(key)))
        dropped = cut
        while dropped < len(key) and isinstance(key[dropped], slice):
            dropped += 1
        key[cut:dropped] = [Ellipsis]
    return tuple(key)


@st.composite
def masks(draw, shape):
    """A boolean mask over the leading axes of a shape."""
    rank = draw(st.integers(1, len(shape)))
    return draw(hnp.arrays(bool, shape[:rank]))


@st.composite
def shapes_and_keys(draw):
    """A shape and a key of any kind that fits it."""
    shape = draw(shapes)
    kind = draw(st.sampled_from([basic_keys, advanced_keys, masks]))
    return shape, draw(kind(shape))
