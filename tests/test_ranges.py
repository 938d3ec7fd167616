"""NVTX ranges: what a tool sees, nesting and balance also when user code raises, and the cost."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gpujac import ranges, settings
from gpujac.ranges import CHUNK, KERNEL, TRACE, TRANSFORM, opened, pop, push, push_counted, record
from tests import device

ROOT = Path(__file__).resolve().parent.parent


def summary(events):
    return [(event.depth, event.name, event.category, event.payload) for event in events]


class Domain:
    """A stand-in for the domain that package nvtx hands out when a tool is attached."""

    def __init__(self):
        self.calls = []
        self.built = 0

    def get_event_attributes(self, message=None, color=None, category=None, payload=None):
        self.built += 1
        return Attributes(message, category, payload)

    def push_range(self, attributes):
        self.calls.append((attributes.message, attributes.category, attributes.payload))

    def pop_range(self):
        self.calls.append("pop")


class Attributes:
    def __init__(self, message, category, payload):
        self.message, self.category, self.payload = message, category, payload


@pytest.fixture
def no_tool(monkeypatch):
    """As in a process without a profiler, before the first range."""
    monkeypatch.setattr(ranges, "_domain", None)
    monkeypatch.setattr(ranges, "_decided", False)
    monkeypatch.setattr(ranges, "_idle", False)
    monkeypatch.setattr(ranges, "_thread", ranges._Thread())


@pytest.fixture
def tool(monkeypatch, no_tool):
    """As in a process with a profiler: returns the domain that it listens to."""
    domain = Domain()
    monkeypatch.setattr(ranges.nvtx, "get_domain", lambda name: domain)
    return domain


# ---------------------------------------------------------------- the recorder


def test_record_collects_name_category_payload_and_depth_in_opening_order():
    with record() as events:
        with opened("jacrev", TRANSFORM, 100):
            for index in range(2):
                with opened("chunk", CHUNK, index), opened("sweep", CHUNK):
                    pass
        with opened("axpy", KERNEL, 4096):
            pass
    assert summary(events) == [
        (0, "jacrev", "transform", 100),
        (1, "chunk", "chunk", 0),
        (2, "sweep", "chunk", None),
        (1, "chunk", "chunk", 1),
        (2, "sweep", "chunk", None),
        (0, "axpy", "kernel", 4096),
    ]


def test_times_of_nested_ranges_nest():
    with record() as events, opened("outer"), opened("inner"):
        pass
    outer, inner = events
    assert outer.start_ns <= inner.start_ns <= inner.end_ns <= outer.end_ns
    assert outer.thread == inner.thread == threading.get_ident()


def test_ranges_are_closed_when_user_code_raises():
    def sweep():
        token = push("sweep")
        try:
            raise KeyError("user code")
        finally:
            pop(token)

    with record() as events:
        with pytest.raises(KeyError), opened("jacrev"), opened("chunk"):
            sweep()
        with opened("next"):
            pass
    assert summary(events)[-1] == (0, "next", "transform", None)
    assert all(event.end_ns is not None for event in events)


def test_pop_closes_what_was_left_open_inside():
    with record() as events:
        outer = push("outer")
        push("forgotten")
        pop(outer)
        pop(outer)
        with opened("next"):
            pass
    assert [event.depth for event in events] == [0, 1, 0]
    assert all(event.end_ns is not None for event in events)


def test_recorders_nest_and_each_sees_its_own_block():
    with record() as outer, opened("a"):
        with record() as inner, opened("b"):
            pass
        with opened("c"):
            pass
    assert [event.name for event in outer] == ["a", "b", "c"]
    assert [event.name for event in inner] == ["b"]


def test_a_recorder_ends_with_its_block_also_when_it_raises():
    with pytest.raises(KeyError), record() as events:
        raise KeyError("user code")
    with opened("later"):
        pass
    assert events == []


def test_threads_have_their_own_nesting():
    barrier = threading.Barrier(4)

    def work(index):
        barrier.wait()
        for _ in range(200):
            with opened(f"outer{index}", payload=index), opened(f"inner{index}", payload=index):
                pass

    with record() as events:
        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(events) == 4 * 200 * 2
    for event in events:
        assert event.depth == (0 if event.name.startswith("outer") else 1)
        assert event.end_ns is not None
    assert len({event.thread for event in events}) == 4


def test_a_token_closed_by_another_thread_leaves_both_stacks_alone():
    with record() as events, opened("mine"):
        token = push("left")
        thread = threading.Thread(target=pop, args=(token,))
        thread.start()
        thread.join()
        assert token.end_ns is None
        pop(token)
    assert [event.depth for event in events] == [0, 1]


def test_setting_off_stops_every_range():
    with record() as events, settings.override(nvtx="off"), opened("jacrev"):
        assert push("chunk") is None
    assert events == []


def test_a_range_opened_before_the_setting_changed_is_still_closed():
    with record() as events:
        token = push("jacrev")
        with settings.override(nvtx="off"):
            pop(token)
    assert events[0].end_ns is not None


# ---------------------------------------------------------------- with and without a tool


def test_a_payload_that_is_counted_is_counted_only_where_somebody_looks(no_tool):
    counted = []

    def count(sizes):
        counted.append(sizes)
        return sum(sizes)

    pop(push_counted("before", KERNEL, count, [1]))  # decides that nobody listens
    counted.clear()
    pop(push_counted("gather", KERNEL, count, [8, 16]))
    assert counted == []
    with record() as events:
        pop(push_counted("gather", KERNEL, count, [8, 16]))
    assert counted == [[8, 16]]
    assert summary(events) == [(0, "gather", "kernel", 24)]


def test_a_recorder_may_mark_both_ends_of_every_range():
    clock = iter(range(10))
    with record(lambda: next(clock)) as events, opened("outer"), opened("inner"):
        pass
    assert [event.marks for event in events] == [(0, 3), (1, 2)]
    with record() as events, opened("later"):
        pass
    assert events[0].marks is None


@pytest.mark.usefixtures("no_tool")
def test_without_tool_and_recorder_nothing_is_built():
    assert push("jacrev", TRANSFORM, 3) is None
    assert ranges._idle
    pop(None)
    assert ranges._thread.open == []


def test_whether_a_tool_is_attached_is_decided_once(monkeypatch, no_tool):
    asked = []

    class Dummy:
        def get_event_attributes(self):
            return None

    monkeypatch.setattr(ranges.nvtx, "get_domain", lambda name: asked.append(name) or Dummy())
    for _ in range(3):
        with record(), opened("a"):
            pass
        push("b")
    assert asked == ["gpujac"]


def test_a_tool_sees_messages_categories_and_payloads_in_balance(tool):
    with pytest.raises(KeyError), opened("jacrev", TRANSFORM, 8):
        for index in range(2):
            with opened("chunk", CHUNK, index), opened("sweep", TRACE):
                if index:
                    raise KeyError("user code")
    assert tool.calls == [
        ("jacrev", "transform", 8),
        ("chunk", "chunk", 0), ("sweep", "trace", None), "pop", "pop",
        ("chunk", "chunk", 1), ("sweep", "trace", None), "pop", "pop",
        "pop",
    ]  # fmt: skip


def test_attributes_are_built_once_per_message_and_category(tool):
    for index in range(10):
        with opened("chunk", CHUNK, index):
            pass
    assert tool.built == 2  # one asks whether there is a tool
    assert [call[2] for call in tool.calls if call != "pop"] == list(range(10))


def test_a_tool_pops_as_often_as_it_pushed_when_a_pop_was_forgotten(tool):
    outer = push("outer")
    push("forgotten")
    pop(outer)
    assert tool.calls.count("pop") == 2


@pytest.mark.usefixtures("no_tool")
def test_state_tells_why_there_are_no_ranges():
    assert ranges.state() == "ready, no tool attached"
    with settings.override(nvtx="off"):
        assert ranges.state() == "off (settings.nvtx)"


@pytest.mark.usefixtures("tool")
def test_state_tells_that_a_tool_listens():
    assert ranges.state() == "on, domain 'gpujac', a tool is attached"


def test_state_names_the_variable_that_disables_nvtx():
    code = "from gpujac import ranges; print(ranges.state())"
    environment = {**os.environ, "NVTX_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "off (environment NVTX_DISABLE)\n"


SCRIPT = """
from gpujac import ranges, settings
try:
    with ranges.opened("jacrev", ranges.TRANSFORM, 100):
        for index in range(2):
            with ranges.opened("chunk", ranges.CHUNK, index), ranges.opened("sweep", ranges.TRACE):
                if index:
                    raise KeyError
except KeyError:
    pass
with settings.override(nvtx="off"), ranges.opened("hidden"):
    pass
"""


# What a profiler sees of the transforms: user code that raises, in f, in a chunk, in a kernel.
TRANSFORMS = """
import numpy as np
import gpujac as gj
from gpujac import settings

x = np.ones(3)
gj.jacrev(np.cumsum, chunk_size=2)(x)

def raises(x):
    raise KeyError("user")

def stops(plan):
    raise KeyError("user")

for f, options in ((raises, {}), (np.cumsum, {"report": stops})):
    try:
        gj.jacfwd(f, **options)(x)
    except KeyError:
        pass
try:
    gj.vmap(lambda z: raises(z) if z.sum() is None else raises(z), chunk_size=2)(np.ones((3, 2)))
except KeyError:
    pass
with settings.override(nvtx="ops"):
    gj.jvp(lambda x: np.sin(x) * 2.0, (x,), (x,))
    try:
        gj.jvp(lambda x: np.linalg.solve(x, x), (x,), (x,))
    except Exception:
        pass
"""
KERNELS = """
import numpy as np
from gpujac.backends import choose
from gpujac.backends.kernels import Kernel
be = choose.load("emulated")
x = be.xp.asarray(np.arange(3.0))
be.take(x, np.array([2, 0]), -1)
try:
    be.launch(Kernel("this is no kernel", "broken"), (1,), (32,), (x, np.int32(3)))
except Exception as error:
    assert type(error).__name__ == "KernelError", error
be.take(x, np.array([1]), -1)
"""


needs_tool = pytest.mark.skipif(
    shutil.which("g++") is None and not os.environ.get("CI"),
    reason="builds a small NVTX tool: needs g++ (in continuous integration its absence is a failure)",
)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the tool is built as a Linux shared object")


@pytest.fixture(scope="module")
def tool_library(tmp_path_factory):
    """The stand-in for a profiler, built."""
    library = tmp_path_factory.mktemp("nvtx") / "tool.so"
    source = Path(__file__).with_name("nvtx_tool.cpp")
    subprocess.run(["g++", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def seen_by(library, script):
    """What a tool outside the program sees: lines of pushes and pops."""
    environment = {**os.environ, "NVTX_INJECTION64_PATH": str(library), "PYTHONPATH": str(ROOT)}
    environment.pop("NVTX_DISABLE", None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def nested(lines):
    """The pushes with their depths; asserts that every one was popped, in its domain."""
    found, depth = [], 0
    for line in lines:
        what, domain, *rest = line.split(" ")
        assert domain == "gpujac"
        if what == "push":
            found.append((depth, *rest))
        depth += 1 if what == "push" else -1
        assert depth >= 0, "popped more often than pushed"
    assert depth == 0, "a range was left open"
    return found


@needs_tool
@on_linux
def test_a_real_nvtx_tool_sees_the_domain_and_balanced_ranges(tool_library):
    assert seen_by(tool_library, SCRIPT) == [
        "push gpujac transform jacrev 100",
        "push gpujac chunk chunk 0",
        "push gpujac trace sweep -",
        "pop gpujac",
        "pop gpujac",
        "push gpujac chunk chunk 1",
        "push gpujac trace sweep -",
        "pop gpujac",
        "pop gpujac",
        "pop gpujac",
    ]


@needs_tool
@on_linux
def test_a_real_nvtx_tool_sees_the_transforms_in_balance_also_when_user_code_raises(tool_library):
    def chunk(index, rows):
        return [(1, "chunk", "chunk", index), (2, "chunk", "basis", "-"), (2, "replay", "sweep", rows),
                (2, "chunk", "assemble", "-")]  # fmt: skip

    found = nested(seen_by(tool_library, TRANSFORMS))
    head = [(0, "transform", "jacrev", "-"), (1, "trace", "linearize", "-")]
    assert found[:10] == [*head, *chunk("0", "2"), *chunk("1", "1")]
    assert found[10:] == [
        (0, "transform", "jacfwd", "-"), (1, "trace", "linearize", "-"),  # raised in f
        (0, "transform", "jacfwd", "-"), (1, "trace", "linearize", "-"),  # raised by the report
        (0, "transform", "vmap", "3"), (1, "chunk", "chunk", "0"),  # raised in a chunk
        (0, "transform", "jvp", "-"), (1, "trace", "sin", "-"), (1, "trace", "multiply", "-"),
        (0, "transform", "jvp", "-"),
    ]  # fmt: skip


@needs_tool
@on_linux
@pytest.mark.skipif(bool(device.MISSING), reason="our kernels are launched through CuPy, which is not installed here")
def test_a_real_nvtx_tool_sees_our_kernels_with_their_bytes_also_one_that_fails(tool_library):
    first, broken, last = nested(seen_by(tool_library, KERNELS))
    assert first[:2] == last[:2] == (0, "kernel")
    assert first[2] == last[2]
    assert first[2].startswith("gather")
    assert first[3] == str(3 * 8 + 2 * 8 + 2 * 8)  # x, the positions, the result
    assert broken == (0, "kernel", "broken", "24")
