"""NVTX ranges: what a tool sees, nesting and balance also when user code raises, and the cost."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gpujac import ranges, settings
from gpujac.ranges import CHUNK, KERNEL, TRACE, TRANSFORM, opened, pop, push, record


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


@pytest.mark.skipif(
    shutil.which("g++") is None and not os.environ.get("CI"),
    reason="builds a small NVTX tool: needs g++ (in continuous integration its absence is a failure)",
)
@pytest.mark.skipif(sys.platform != "linux", reason="the tool is built as a Linux shared object")
def test_a_real_nvtx_tool_sees_the_domain_and_balanced_ranges(tmp_path):
    library = tmp_path / "tool.so"
    source = Path(__file__).with_name("nvtx_tool.cpp")
    subprocess.run(["g++", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    environment = {**os.environ, "NVTX_INJECTION64_PATH": str(library)}
    environment.pop("NVTX_DISABLE", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
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
