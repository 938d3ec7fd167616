"""`python -m gpujac timeline`: the trace file, both tracks, the picture, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpujac as gj
from gpujac import arrays, ranges, timeline
from tests import device

ROOT = Path(__file__).resolve().parent.parent
MODEL = """
import numpy as np

def layers(x, p):
    return np.tanh(p["w"] @ np.tanh(p["w"] @ x)) + np.zeros(x.shape[0])

def loss(x, p):
    return np.sum(layers(x, p) ** 2)

def raises(x, p):
    raise ValueError("no")
"""
needs_cupy = pytest.mark.skipif(bool(device.MISSING), reason="emulated arrays are CuPy's, which is not installed here")


@pytest.fixture
def folder(tmp_path):
    """A folder with a model file and arguments."""
    (tmp_path / "model.py").write_text(MODEL)
    np.save(tmp_path / "x.npy", np.linspace(-1.0, 1.0, 6))
    np.savez(tmp_path / "p.npz", w=np.linspace(-0.5, 0.5, 36).reshape(6, 6))
    return tmp_path


def command(folder, *options, function="model.py:layers"):
    """Runs the command on the model in `folder`."""
    call = [sys.executable, "-W", "error", "-m", "gpujac", "timeline", function, "--at", "x.npy", "--at", "p.npz"]
    return subprocess.run(
        [*call, *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def written(folder, *options, **more):
    """The bars in the trace that a run writes, and what it printed."""
    done = command(folder, "--out", "trace.json", *options, **more)
    assert done.returncode == 0, done.stderr
    data = json.loads((folder / "trace.json").read_text())
    return [e for e in data["traceEvents"] if e["ph"] == "X"], data, done.stdout


def inside(inner, outer):
    return outer["ts"] <= inner["ts"] and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + 0.01


# ---------------------------------------------------------------- the file


def test_a_jacobian_becomes_nested_bars_with_their_payloads(folder):
    bars, data, said = written(folder, "--backend", "numpy", "--chunk-size", "4")
    assert [bar["name"] for bar in bars] == ["jacrev", "linearize", *["chunk", "basis", "sweep", "assemble"] * 2]
    assert {bar["cat"] for bar in bars} == {"transform", "trace", "chunk", "replay"}
    assert [bar["args"] for bar in bars if bar["name"] == "chunk"] == [{"index": 0}, {"index": 1}]
    assert [bar["args"] for bar in bars if bar["name"] == "sweep"] == [{"rows": 4}, {"rows": 2}]
    assert all(inside(bar, bars[0]) and bar["dur"] >= 0 and bar["pid"] == 1 for bar in bars)
    names = {e["args"]["name"] for e in data["traceEvents"] if e["ph"] == "M" and e["name"] == "process_name"}
    assert names == {"host: Python"}
    assert data["otherData"]["function"] == "model.py:layers"
    assert "arrays       NumPy" in said
    assert "ranges       10, 6 names" in said


@pytest.mark.parametrize(
    ("transform", "function", "first"),
    [("jacfwd", "layers", "jacfwd"), ("grad", "loss", "grad"), ("hessian", "loss", "hessian")],
)
def test_other_transforms_are_recorded_as_well(folder, transform, function, first):
    bars, _, _ = written(folder, "--backend", "numpy", "--transform", transform, function=f"model.py:{function}")
    assert bars[0]["name"] == first
    assert "linearize" in [bar["name"] for bar in bars]


def test_operations_are_shown_on_request(folder):
    bars, _, _ = written(folder, "--backend", "numpy", "--ops")
    assert [bar["name"] for bar in bars if bar["name"] in ("tanh", "contract")] == ["contract", "tanh"] * 2


@needs_cupy
def test_a_device_has_a_track_of_its_own_and_our_kernels_are_in_it(folder):
    bars, data, said = written(folder, "--backend", "emulated")
    host, there = ([bar for bar in bars if bar["pid"] == pid] for pid in (1, 2))
    assert [(bar["name"], bar["args"]) for bar in host] == [(bar["name"], bar["args"]) for bar in there]
    assert all(inside(bar, there[0]) for bar in there)
    names = [e["args"]["name"] for e in data["traceEvents"] if e["ph"] == "M" and e["name"] == "process_name"]
    assert names == ["host: Python", "device: when its queue came to each range"]
    assert "arrays       emulated" in said
    assert "on the device" in said


def test_a_picture_is_drawn_on_request(folder):
    done = command(folder, "--backend", "numpy", "--out", "t.json", "--picture", "t.png")
    assert done.returncode == 0, done.stderr
    assert (folder / "t.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (folder / "t.png").stat().st_size < 100_000


def test_the_picture_of_the_documentation_can_be_made_again(tmp_path):
    picture = tmp_path / "picture.png"
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "timeline_example.py", "--backend", "numpy", "--picture", str(picture)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 < picture.stat().st_size < 100_000
    assert 0 < (ROOT / "docs" / "timeline.png").stat().st_size < 100_000


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "t.txt"), "--out t.txt: the name must end in .json"),
        (("--out", "none/t.json"), "--out none/t.json: there is no folder 'none'"),
        (("--out", "t.json", "--picture", "t.jpg"), "--picture t.jpg: the name must end in .png"),
        (("--out", "t.json", "--argnums", "7"), "--argnums: "),
        (("--out", "t.json", "--chunk-size", "0"), "'0' is not auto, none or a whole number"),
        (("--out", "t.json", "--transform", "vjp"), "invalid choice: 'vjp'"),
        ((), "the following arguments are required: --out"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_writes_nothing(folder, options, message):
    done = command(folder, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert list(folder.glob("t.*")) == []


def test_a_failing_function_is_exit_code_1_and_names_its_line(folder):
    done = command(folder, "--out", "t.json", "--backend", "numpy", function="model.py:raises")
    assert done.returncode == 1
    assert "jacrev failed in model.py (line 11): ValueError: no" in done.stderr
    assert not (folder / "t.json").exists()


@pytest.mark.skipif(arrays.chosen().name == "cupy", reason="there is a card here, so CuPy can be asked for")
def test_asking_for_a_card_that_is_not_there_is_exit_code_2(folder):
    done = command(folder, "--out", "t.json", "--backend", "cupy")
    assert done.returncode == 2
    assert "--backend cupy: CuPy cannot be used here" in done.stderr


# ---------------------------------------------------------------- conversion


def test_device_bars_come_from_the_marks_at_both_ends():
    clock = iter(range(100))
    with ranges.record(lambda: next(clock)) as events:
        gj.jacrev(np.sin, chunk_size=2)(np.ones(3))
    spans = timeline.device_spans(events, 0, lambda start, end: float(end - start))
    assert len(spans) == len(events)
    assert (spans[0].start_s, spans[0].end_s) == (0.0, 2 * len(events) - 1.0)
    assert all(span.end_s > span.start_s for span in spans)


def test_a_range_that_is_still_open_has_no_bar():
    with ranges.record() as events:
        token = ranges.push("jacrev")
        with ranges.opened("chunk", ranges.CHUNK, 0):
            pass
        assert [span.event.name for span in timeline.host_spans(events, 0)] == ["chunk"]
        assert timeline.device_spans(events, 0, None) == []
        ranges.pop(token)


def test_threads_are_numbered_in_the_order_in_which_they_came():
    events = [ranges.Event("a", "trace", None, 0, 0, thread, 10) for thread in (900, 17, 900)]
    bars = [e for e in timeline.trace(timeline.host_spans(events, 0))["traceEvents"] if e["ph"] == "X"]
    assert [bar["tid"] for bar in bars] == [1, 2, 1]
    assert bars[0]["dur"] == 0.01  # 10 ns
