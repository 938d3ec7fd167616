"""Settings: defaults, environment, checks, and overrides that stay in their block and thread."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujac import settings
from gpujac.errors import ArgumentError, ArgumentTypeError

DEFAULTS = {
    "backend": "auto",
    "memory": None,
    "nvtx": "transforms",
    "missing_batch_rule": "loop",
    "decompositions": "auto",
    "kernels": "auto",
    "debug_nans": False,
    "tracebacks": "short",
    "deterministic": False,
    "plan_memory": 64_000_000,
    "malloc_trim": "auto",
    "sanitize": "undefined",
}


@pytest.fixture
def fresh(monkeypatch):
    """Settings as in a new process without any variable; whatever a test sets is undone."""
    for name in DEFAULTS:
        monkeypatch.delenv(f"GPUJAC_{name.upper()}", raising=False)
    monkeypatch.setattr(settings, "_process", {})
    return monkeypatch


@pytest.mark.usefixtures("fresh")
def test_show_lists_every_setting_with_its_default():
    assert settings.show() == DEFAULTS


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", DEFAULTS)
def test_get_and_attribute_agree(name):
    assert settings.get(name) == getattr(settings, name) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("backend", "numpy", "numpy"),
        ("memory", "2GB", 2 * 10**9),
        ("memory", "none", None),
        ("memory", "", None),
        ("nvtx", "off", "off"),
        ("missing_batch_rule", "raise", "raise"),
        ("decompositions", "off", "off"),
        ("kernels", "off", "off"),
        ("debug_nans", "0", False),
        ("debug_nans", "1", True),
        ("debug_nans", "False", False),
        ("deterministic", "1", True),
        ("deterministic", "off", False),
        ("malloc_trim", "off", "off"),
        ("sanitize", "address", "address"),
    ],
)
def test_environment_sets_a_setting(fresh, name, text, value):
    fresh.setenv(f"GPUJAC_{name.upper()}", text)
    assert settings.get(name) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nvtx", "loud", "GPUJAC_NVTX='loud' is not one of 'transforms', 'off', 'ops'."),
        ("debug_nans", "maybe", "GPUJAC_DEBUG_NANS='maybe' is not a switch; use 1 or 0."),
        ("deterministic", "2", "GPUJAC_DETERMINISTIC='2' is not a switch; use 1 or 0."),
        ("memory", "lots", "GPUJAC_MEMORY='lots' is not a size; write bytes"),
        ("memory", "0", "GPUJAC_MEMORY='0' is below one byte; use a positive size"),
    ],
)
def test_a_wrong_variable_is_named_in_the_message(fresh, name, text, message):
    fresh.setenv(f"GPUJAC_{name.upper()}", text)
    with pytest.raises(ArgumentError) as caught:
        settings.get(name)
    assert str(caught.value).startswith(f"environment {message}")


def test_a_wrong_variable_does_not_break_the_import():
    code = "import gpujac.settings as s; print(s.get('nvtx'))"
    environment = {**os.environ, "GPUJAC_MEMORY": "lots", "GPUJAC_NVTX": "off"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "off\n"


@pytest.mark.usefixtures("fresh")
def test_override_ends_with_its_block_also_when_it_raises():
    with pytest.raises(KeyError), settings.override(nvtx="off", memory="1kB"):
        assert (settings.get("nvtx"), settings.memory) == ("off", 1000)
        raise KeyError("user code")
    assert settings.show() == DEFAULTS


@pytest.mark.usefixtures("fresh")
def test_overrides_nest_and_inner_ones_win():
    with settings.override(nvtx="off", kernels="off"):
        with settings.override(nvtx="transforms"):
            assert (settings.nvtx, settings.kernels) == ("transforms", "off")
        assert settings.nvtx == "off"


@pytest.mark.usefixtures("fresh")
def test_override_is_seen_by_its_own_thread_only():
    seen = []
    with settings.override(nvtx="off"):
        thread = threading.Thread(target=lambda: seen.append(settings.get("nvtx")))
        thread.start()
        thread.join()
    assert seen == ["transforms"]


@pytest.mark.usefixtures("fresh")
def test_assignment_is_checked_and_seen_by_every_thread():
    settings.memory = "3kB"
    seen = []
    thread = threading.Thread(target=lambda: seen.append(settings.get("memory")))
    thread.start()
    thread.join()
    assert seen == [3000]
    with pytest.raises(ArgumentError, match=r"settings\.kernels='on' is not one of 'auto', 'off'"):
        settings.kernels = "on"


@pytest.mark.usefixtures("fresh")
def test_override_changes_nothing_when_one_value_is_wrong():
    with (
        pytest.raises(ArgumentTypeError, match=r"settings\.debug_nans=1 has type int; use True or"),
        settings.override(nvtx="off", debug_nans=1),
    ):
        pytest.fail("the block must not run")
    assert settings.show() == DEFAULTS


def enter_override(name):
    with settings.override(**{name: 1}):
        pass


@pytest.mark.parametrize("use", [settings.get, enter_override])
def test_an_unknown_setting_is_refused_with_the_list(use):
    with pytest.raises(ArgumentError, match="there is no setting 'memmory'; there are backend, "):
        use("memmory")


def test_assigning_to_a_misspelled_setting_is_refused():
    with pytest.raises(ArgumentError, match="there is no setting 'memmory'"):
        settings.memmory = 3
    with pytest.raises(AttributeError, match="memmory"):
        _ = settings.memmory


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (None, None),
        (1, 1),
        (np.int64(7), 7),
        (2e9, 2 * 10**9),
        ("512", 512),
        ("512 B", 512),
        ("2GB", 2 * 10**9),
        ("2 gb", 2 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("800MB", 8 * 10**8),
        ("64k", 64000),
        ("1e3kB", 10**6),
        (".5MiB", 2**19),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_parse_bytes_reads_numbers_and_sizes(value, size):
    assert settings.parse_bytes(value) == size


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("2XB", ArgumentError, "chunk='2XB' is not a size; write bytes as a number, or text such"),
        ("1e400GB", ArgumentError, "chunk='1e400GB' is larger than any memory"),
        ("9" * 5000, ArgumentError, "chunk='9+' is larger than any memory"),
        ("-1GB", ArgumentError, "chunk='-1GB' is not a size"),
        ("GB", ArgumentError, "chunk='GB' is not a size"),
        ("2iB", ArgumentError, "chunk='2iB' is not a size"),
        ("", ArgumentError, "chunk='' is not a size"),
        (0, ArgumentError, "chunk=0 is below one byte; use a positive size or None."),
        (-3, ArgumentError, "chunk=-3 is below one byte"),
        (True, ArgumentTypeError, "chunk=True has type bool; use a number of bytes, text such as"),
        ([1], ArgumentTypeError, r"chunk=\[1\] has type list"),
        (float("nan"), ArgumentTypeError, "chunk=nan has type float"),
    ],
)
def test_parse_bytes_refuses_with_the_cure(value, error, message):
    with pytest.raises(error, match=f"^{message}"):
        settings.parse_bytes(value, "chunk")


@given(st.integers(1, 10**15), st.sampled_from([("kB", 10**3), ("MiB", 2**20), ("TB", 10**12)]))
def test_parse_bytes_is_exact_for_whole_numbers(count, unit):
    assert settings.parse_bytes(f"{count}{unit[0]}") == count * unit[1]
