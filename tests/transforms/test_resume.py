"""A Jacobian that was stopped goes on with the next row: by number, or by the record beside the result."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import gpujac as gj
from gpujac.errors import ArgumentError
from gpujac.transforms import sink
from tests.transforms.test_out import Store, W, X, f

SWEEPS = []  # the chunks swept so far, and where one of them is to fail
FAILS = [0, OSError]


def swept(x):
    return x * 1.0


counted = gj.custom_vjp(swept)


def _backward(kept, ct):
    SWEEPS.append(1)
    if len(SWEEPS) == FAILS[0]:
        raise FAILS[1]("stopped")
    return (ct * 1.0,)


counted.defvjp(lambda x: (swept(x), ()), _backward)


def g(x):
    return f(counted(x))


@pytest.fixture(autouse=True)
def _begin():
    SWEEPS.clear()
    FAILS[:] = [0, OSError]


def stopped(at, call, error=OSError):
    """The note of a run whose sweep number `at` fails."""
    SWEEPS.clear()
    FAILS[:] = [at, error]
    with pytest.raises(error) as caught:
        call()
    FAILS[0] = 0
    SWEEPS.clear()
    (note,) = caught.value.__notes__
    return note


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_rows_before_the_one_that_stopped_are_valid_and_are_not_done_again(at, error):
    wanted = gj.jacrev(f, chunk_size=4)(X)
    out = np.full((12, 5), np.nan)
    done = 4 * (at - 1)
    note = stopped(at, lambda: gj.jacrev(g, chunk_size=4, out=out)(X), error)
    assert note == (
        f"gpujac: {done} of 12 rows of the Jacobian are in out; the next is {done}, and resume={done} goes on there"
    )
    np.testing.assert_array_equal(out[:done], wanted[:done])
    assert np.isnan(out[done:]).all()
    plans = []
    assert gj.jacrev(g, chunk_size=4, out=out, resume=done, report=plans.append)(X) is out
    np.testing.assert_array_equal(out, wanted)
    assert len(SWEEPS) == plans[0].chunks == 4 - at


def test_any_row_can_be_the_first():
    wanted = gj.jacrev(f)(X)
    for row in range(13):
        for chunk_size in (None, 1, 5):
            out = Store((12, 5))
            gj.jacrev(f, chunk_size=chunk_size, out=out, resume=row)(X)
            np.testing.assert_allclose(out.values[row:], wanted[row:], rtol=1e-14)
            assert (out.times[row:] == 1).all()
            assert not out.times[:row].any()
    with pytest.raises(ArgumentError, match="resume=13, but the Jacobian has 12 rows in all"):
        gj.jacrev(f, out=out, resume=13)(X)


def test_columns_of_forward_mode_and_of_a_hessian():
    for transform, h, size in ((gj.jacfwd, f, 5), (gj.hessian, lambda x: np.sin(x).prod(), 5)):
        wanted = transform(h)(X)
        out = np.full(wanted.shape, np.nan)
        transform(h, chunk_size=2, out=out, resume=3)(X)
        np.testing.assert_allclose(out[:, 3:], wanted[:, 3:], rtol=1e-13)
        assert np.isnan(out[:, :3]).all()
        with pytest.raises(ArgumentError, match=f"resume=6, but the Jacobian has {size} columns"):
            transform(h, out=out, resume=6)(X)


def test_rows_count_through_all_outputs():
    h = lambda x: {"a": f(x), "b": np.cumsum(x)}
    wanted = gj.jacrev(h, chunk_size=4)(X)
    out = {"a": np.full((12, 5), np.nan), "b": np.full((5, 5), np.nan)}
    gj.jacrev(h, chunk_size=4, out=out, resume=14)(X)
    assert np.isnan(out["a"]).all()
    assert np.isnan(out["b"][:2]).all()
    np.testing.assert_allclose(out["b"][2:], wanted["b"][2:])


def test_a_scalar_function_has_one_row():
    out = np.zeros(5)
    gj.jacrev(lambda x: x.sum(), out=out, resume=1)(X)
    assert not out.any()
    gj.jacrev(lambda x: x.sum(), out=out, resume=0)(X)
    assert out.all()


def test_an_array_that_fails_leaves_the_rows_before(tmp_path):
    out = Store((12, 5))
    out.fails_at = 2
    record = tmp_path / "rows"
    run = lambda: gj.jacrev(g, chunk_size=4, out=out, resume=record)(X)
    with pytest.raises(OSError, match="no space left") as caught:
        run()
    assert caught.value.__notes__ == [
        "gpujac: 8 of 12 rows of the Jacobian are in out; the next is 8, and the same call goes on there"
    ]
    out.fails_at = None
    SWEEPS.clear()
    run()
    assert len(SWEEPS) == 1
    assert (out.times == 1).all()
    np.testing.assert_array_equal(out, gj.jacrev(f, chunk_size=4)(X))


# ---------------------------------------------------------------- the record


def test_the_record_is_there_as_long_as_rows_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sink, "FLUSH_BYTES", 1)
    record = tmp_path / "J.rows"
    out = np.memmap(tmp_path / "J", float, "w+", shape=(12, 5))
    run = lambda: gj.jacrev(g, chunk_size=4, out=out, resume=record)(X)
    note = stopped(3, run)
    assert note.endswith("the next is 8, and the same call goes on there")
    told = json.loads(record.read_text())
    assert (told["rows_done"], told["rows"], told["chunk_size"], told["mode"]) == (8, 12, 4, "rev")
    assert told["blocks"] == [[[12, 5], "float64"]]
    wanted = gj.jacrev(f, chunk_size=4)(X)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "J").reshape(12, 5)[:8], wanted[:8])
    run()
    assert len(SWEEPS) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["J"]  # no record, and nothing half written
    np.testing.assert_array_equal(out, wanted)
    SWEEPS.clear()
    run()  # nothing to resume: all of it
    assert len(SWEEPS) == 3


def test_the_record_never_says_more_than_is_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sink, "FLUSH_BYTES", 1)
    steps = []
    monkeypatch.setattr(sink, "write_back", lambda x: steps.append("flush"))
    monkeypatch.setattr(sink.Record, "write", lambda self, done, digest: steps.append(done))
    out = np.memmap(tmp_path / "J", float, "w+", shape=(12, 5))
    gj.jacrev(f, chunk_size=6, out=out, resume=tmp_path / "rows")(X)
    assert steps == [step for done in (*range(1, 13), 12) for step in ("flush", done)]


def other_function(x):
    return 2.0 * f(x)


@pytest.mark.parametrize(("change", "word"), [
    (lambda out: gj.jacrev(g, chunk_size=5, out=out)(X), "chunk_size is 4, here it is 5"),
    (lambda out: gj.jacrev(g, chunk_size=4, out=out)(X + 1e-15), "point is"),
    (lambda out: gj.jacrev(other_function, chunk_size=4, out=out)(X), "output is"),
    (lambda out: gj.jacfwd(g, chunk_size=4, out=out)(X), "mode is rev, here it is fwd"),
    (lambda out: gj.jacrev(g, chunk_size=4, out=out.astype("f4"))(X.astype("f4")), "blocks is"),
    (lambda out: gj.jacrev(lambda x: f(x)[:10], chunk_size=4, out=out[:10])(X), "rows is 12, here it is 10"),
], ids=["chunks", "point", "function", "mode", "dtype", "shape"])  # fmt: skip
def test_another_jacobian_is_not_continued(change, word, tmp_path, monkeypatch):
    record, out = tmp_path / "rows", np.zeros((12, 5))
    stopped(2, lambda: gj.jacrev(g, chunk_size=4, out=out, resume=record)(X))
    before = record.read_text()
    for name in ("jacrev", "jacfwd"):
        plain = getattr(gj, name)
        monkeypatch.setattr(gj, name, lambda *a, plain=plain, **k: plain(*a, **k, resume=record))
    with pytest.raises(ArgumentError, match=r"is the record of another Jacobian: its .* go on from row 4") as caught:
        change(out)
    assert word in str(caught.value)
    assert record.read_text() == before
    assert not SWEEPS


@pytest.mark.parametrize("text", ["", "12", "[]", "{}", "rows"])
def test_a_file_that_is_no_record_is_refused_and_left_alone(text, tmp_path):
    path = tmp_path / "notes"
    path.write_text(text)
    with pytest.raises(ArgumentError, match="is no record of rows"):
        gj.jacrev(f, out=np.zeros((12, 5)), resume=path)(X)
    assert path.read_text() == text


@pytest.mark.parametrize("make", [np.zeros, lambda shape: np.zeros(shape, order="F"), Store])
def test_rows_that_are_not_there_any_more_are_noticed(make, tmp_path):
    record, out = tmp_path / "rows", make((12, 5))
    run = lambda out: gj.jacrev(g, chunk_size=4, out=out, resume=record)(X)
    stopped(2, lambda: run(out))
    with pytest.raises(ArgumentError, match="says that 4 rows are done, but out does not hold them"):
        run(make((12, 5)))
    run(out)
    np.testing.assert_array_equal(out, gj.jacrev(f, chunk_size=4)(X))


def test_a_record_needs_rows_that_can_be_read(tmp_path):
    class WriteOnly:
        shape, dtype = (12, 5), np.dtype(float)

        def __setitem__(self, key, value):
            seen.append(key)

    seen = []
    gj.jacrev(f, out=WriteOnly())(X)
    assert seen == [(slice(0, 12), slice(0, 5))]
    with pytest.raises(gj.errors.ArgumentTypeError, match="needs rows to be read back, but out is a WriteOnly"):
        gj.jacrev(f, out=WriteOnly(), resume=tmp_path / "rows")(X)


KILLED = """
import os, signal, sys
import numpy as np
import gpujac as gj
from gpujac.transforms import sink
from tests.transforms import test_resume as t
sink.FLUSH_BYTES = 1
out = np.memmap(sys.argv[1], float, "r+", shape=(12, 5))
plain = sink.Record.write
def write(self, done, digest):
    plain(self, done, digest)
    if done == 7:
        os.kill(os.getpid(), signal.SIGKILL)
sink.Record.write = write
gj.jacrev(t.g, chunk_size=4, out=out, resume=sys.argv[2])(t.X)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by signals")
def test_a_process_that_was_killed_is_continued_by_another(tmp_path):
    np.memmap(tmp_path / "J", float, "w+", shape=(12, 5))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "J"), str(tmp_path / "rows")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": "."})
    assert answer.returncode == -signal.SIGKILL, answer.stderr
    out = np.memmap(tmp_path / "J", float, "r+", shape=(12, 5))
    wanted = gj.jacrev(f, chunk_size=4)(X)
    np.testing.assert_array_equal(out[:7], wanted[:7])
    gj.jacrev(g, chunk_size=4, out=out, resume=tmp_path / "rows")(X)
    np.testing.assert_allclose(out, wanted, rtol=1e-14)
    assert len(SWEEPS) == 2
    assert W.shape == (12, 5)
