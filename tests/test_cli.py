"""The command line as a subprocess: what it prints, its exit codes, and files written whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpujac.cli_files import CommandError, write_whole

ROOT = Path(__file__).resolve().parent.parent
MODEL = """
import sys, time
from pathlib import Path
import numpy as np
import gpujac as gj

CONSTANT = 3.0

def square(u):
    return u[1:] * u[:-1] + u[1:] ** 2

def two(u, p):
    return {"a": p["k"] * u, "b": np.sum(u * p["w"])}

def loss(u, v):
    return np.sum(u * v**2)

def single(u):
    return np.sin(u)

def raises(u):
    text = "first"
    raise ValueError(text + "\\n  second")

def exits(u):
    sys.exit("gone")

def refuses_tracing(u):
    return np.asarray(u) * 2.0

def hides_half_of_its_derivative(u):
    return u * gj.value(u)

def writes_into_its_argument(u):
    u *= 2.0
    return u * u

def nan(u):
    return u * np.nan

def waits(u):
    Path("started").touch()
    time.sleep(60)

class Model:
    @staticmethod
    def cube(u):
        return u**3

def residual(u, p):
    du = np.zeros_like(u)
    du[1:-1] = p["nu"] * (u[2:] - 2 * u[1:-1] + u[:-2]) + u[1:-1] * (1 - u[1:-1])
    return np.concatenate([du, u.sum(keepdims=True)]) if p["monitor"] else du
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a model file and arguments."""
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "broken.py").write_text("import numpy\n\n1 / 0\n")
    (tmp_path / "syntax.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "quits.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "empty.npy").write_text("")
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "notes.txt").write_text("notes")
    np.save(tmp_path / "u.npy", np.linspace(0.5, 1.5, 6))
    np.save(tmp_path / "v.npy", np.linspace(-1.0, 1.0, 6))
    np.save(tmp_path / "single.npy", np.linspace(0.5, 1.5, 6, dtype=np.float32))
    np.save(tmp_path / "large.npy", np.linspace(0.5, 1.5, 60))
    np.save(tmp_path / "integers.npy", np.arange(6))
    np.save(tmp_path / "objects.npy", np.array([1, "a"], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "p.npz", k=2.0, w=np.arange(6.0))
    np.savez(tmp_path / "options.npz", nu=0.1, monitor=True)
    return tmp_path


def command(folder, *arguments, **options):
    """Runs `python -m gpujac ...` in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("environment", {})}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "gpujac", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def jacobian(folder, *arguments, **options):
    """Runs `python -m gpujac jacobian ...` in a folder."""
    return command(folder, "jacobian", *arguments, **options)


def lines_of(done):
    """What a successful run printed, as a dict from the first word(s) to the rest."""
    assert done.returncode == 0, done.stderr
    return {line[:12].strip(): line[13:] for line in done.stdout.splitlines()}


def leftovers(folder):
    """Files that an unfinished write left behind."""
    return [path.name for path in folder.iterdir() if path.name.endswith(".part")]


def square_jacobian(u):
    """The Jacobian of `square` by hand."""
    j = np.zeros((u.size - 1, u.size))
    rows = np.arange(u.size - 1)
    j[rows, rows], j[rows, rows + 1] = u[1:], u[:-1] + 2 * u[1:]
    return j


# ---------------------------------------------------------------- what it computes


def test_jacobian_is_reported_checked_and_written(folder):
    """One run tells shape, dtype, mode, chunk size, time, memory and the error, and saves J."""
    done = jacobian(folder, "model.py:square", "--at", "u.npy", "--check", "--out", "J.npz")
    lines = lines_of(done)
    assert lines["argument"] == "u.npy: float64 (6,)"
    assert lines["jacobian"] == "J: shape (5, 6), dtype float64, 240 B"
    assert lines["mode"] in ("rev (chosen)", "fwd (chosen)")
    assert lines["check"].startswith("ok: largest error ")
    assert lines["time"].endswith(" s")
    assert "peak memory" in lines
    assert done.stderr == ""
    with np.load(folder / "J.npz") as saved:
        np.testing.assert_allclose(saved["J"], square_jacobian(np.linspace(0.5, 1.5, 6)))


@pytest.mark.parametrize(("mode", "chunk_size"), [("rev", "1"), ("fwd", "2"), ("rev", "none"), ("fwd", "auto")])
def test_every_mode_and_chunk_size_writes_the_same_jacobian(folder, mode, chunk_size):
    """The options change how, not what."""
    lines = lines_of(
        jacobian(
            folder, "model.py:square", "--at", "u.npy", "--mode", mode, "--chunk-size", chunk_size,
            "--assembly", "preallocate", "--memory", "1GB", "--out", "J.npy",
        )
    )  # fmt: skip
    assert lines["mode"] == f"{mode} (asked for)"
    saved = np.load(folder / "J.npy")
    np.testing.assert_allclose(saved, square_jacobian(np.linspace(0.5, 1.5, 6)))


def test_the_number_of_chunks_is_reported(folder):
    """5 rows in chunks of 2 are 3 chunks."""
    lines = lines_of(jacobian(folder, "model.py:square", "--at", "u.npy", "--mode", "rev", "--chunk-size", "2"))
    assert lines["chunk size"] == "2 (asked for): 5 rows in 3 chunks"


def test_trees_are_written_by_their_paths(folder):
    """A dict of outputs and a dict argument make one array per pair."""
    done = jacobian(
        folder, "model.py:two", "--at", "u.npy", "--at", "p.npz", "--argnums", "0,1", "--check",
        "--out", "J.npz",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(folder / "J.npz") as saved:
        assert sorted(saved.files) == ["a.0", "a.1.k", "a.1.w", "b.0", "b.1.k", "b.1.w"]
        np.testing.assert_allclose(saved["a.0"], 2 * np.eye(6))
        np.testing.assert_allclose(saved["b.0"], np.arange(6.0))


def test_a_stencil_with_writes_and_a_dict_of_options(folder):
    """A reaction-diffusion residual: parameters and a switch come from one .npz file."""
    done = jacobian(
        folder, "model.py:residual", "--at", "u.npy", "--at", "options.npz", "--check",
        "--out", "J.npy",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    saved = np.load(folder / "J.npy")
    assert saved.shape == (7, 6)
    np.testing.assert_array_equal(saved[6], np.ones(6))
    np.testing.assert_allclose(saved[2, 1:4], [0.1, 1 - 2 * 0.9 - 0.2, 0.1])


def test_argnums_selects_one_of_several_arguments(folder):
    """The gradient with respect to the second argument, 2 u v."""
    done = jacobian(
        folder, "model.py:loss", "--at", "u.npy", "--at", "v.npy", "--argnums=-1", "--check",
        "--out", "g.npy",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wanted = 2 * np.linspace(0.5, 1.5, 6) * np.linspace(-1, 1, 6)
    np.testing.assert_allclose(np.load(folder / "g.npy"), wanted, atol=1e-15)


def test_float32_is_checked_with_its_own_tolerance(folder):
    """A right Jacobian in float32 passes."""
    lines = lines_of(jacobian(folder, "model.py:single", "--at", "single.npy", "--check"))
    assert "dtype float32" in lines["jacobian"]
    assert "tolerance 2e-02" in lines["check"]


def test_names_with_dots_reach_into_classes(folder):
    """`Model.cube` is a function as well."""
    assert jacobian(folder, "model.py:Model.cube", "--at", "u.npy", "--check").returncode == 0


def test_a_function_that_writes_into_its_argument_is_evaluated_at_the_given_point(folder):
    """Plain evaluations get copies: the check compares at the same point."""
    done = jacobian(folder, "model.py:writes_into_its_argument", "--at", "u.npy", "--check")
    assert done.returncode == 0, done.stderr


def test_progress_bar_goes_to_stderr_when_asked_for(folder):
    """No terminal here, so there is a bar only with --progress."""
    quiet = jacobian(folder, "model.py:square", "--at", "u.npy", "--chunk-size", "1")
    shown = jacobian(folder, "model.py:square", "--at", "u.npy", "--chunk-size", "1", "--progress")
    assert quiet.stderr == ""
    assert "100%" in shown.stderr
    assert "100%" not in shown.stdout


# ---------------------------------------------------------------- how it fails

USAGE = [
    (["missing.py:f", "--at", "u.npy"], "there is no file 'missing.py'"),
    (["model.py", "--at", "u.npy"], "write path/to/model.py:function"),
    (["model.py:nothing", "--at", "u.npy"], "model.py has no 'nothing'; it has"),
    (["model.py:CONSTANT", "--at", "u.npy"], "no function but of type float"),
    (["notes.txt:f", "--at", "u.npy"], "its name must end in .py"),
    (["model.py:square", "--at", "missing.npy"], "--at missing.npy: there is no such file"),
    (["model.py:square", "--at", "text.npy"], "not a NumPy file of plain numbers"),
    (["model.py:square", "--at", "empty.npy"], "not a NumPy file of plain numbers"),
    (["model.py:square", "--at", "text.npz"], "not a NumPy file of plain numbers"),
    (["model.py:square", "--at", "objects.npy"], "not a NumPy file of plain numbers"),
    (["model.py:square", "--at", "model.py"], "use a .npy file"),
    (["model.py:square", "--at", "integers.npy"], "has dtype int64"),
    (["model.py:square", "--at", "u.npy", "--argnums", "1"], "the number of arguments (--at) is 1"),
    (["model.py:loss", "--at", "u.npy", "--at", "v.npy", "--argnums", "0,-2"], "names an argument twice"),
    (["model.py:square", "--at", "u.npy", "--argnums", "x"], "is not a position"),
    (["model.py:square", "--at", "u.npy", "--chunk-size", "0"], "is not auto, none or a whole"),
    (["model.py:square", "--at", "u.npy", "--chunk-size", "1.5"], "is not auto, none or a whole"),
    (["model.py:square", "--at", "u.npy", "--mode", "both"], "invalid choice: 'both'"),
    (["model.py:square", "--at", "u.npy", "--assembly", "x"], "invalid choice: 'x'"),
    (["model.py:square", "--at", "u.npy", "--memory", "much"], "is not a size"),
    (["model.py:square", "--at", "u.npy", "--out", "J.txt"], "must end in .npy or .npz"),
    (["model.py:square", "--at", "u.npy", "--out", "no/J.npy"], "there is no folder 'no'"),
    (["model.py:two", "--at", "u.npy", "--at", "p.npz", "--out", "J.npy"], ".npy holds one"),
    (["model.py:square"], "required: --at"),
    ([], "required: function, --at"),
    (["model.py:square", "--at", "u.npy", "--what"], "unrecognized arguments: --what"),
]
FAILS = [
    (["model.py:raises", "--at", "u.npy"], "in model.py (line 23): ValueError: first second"),
    (["model.py:exits", "--at", "u.npy"], "in model.py (line 26): SystemExit: gone"),
    (["broken.py:f", "--at", "u.npy"], "loading failed in broken.py (line 3): ZeroDivisionError"),
    (["syntax.py:f", "--at", "u.npy"], "loading failed in syntax.py (line 2): SyntaxError"),
    (["quits.py:f", "--at", "u.npy"], "loading failed in quits.py (line 2): SystemExit: 3"),
    (["model.py:square", "--at", "u.npy", "--at", "v.npy"], "TypeError: square() takes 1"),
    (["model.py:loss", "--at", "u.npy", "--at", "large.npy"], "ValueError: operands could not be"),
    (["model.py:refuses_tracing", "--at", "u.npy"], "differentiating failed in model.py (line 29)"),
    (
        ["model.py:hides_half_of_its_derivative", "--at", "u.npy", "--check"],
        "the Jacobian is wrong: largest error",
    ),
    (["model.py:nan", "--at", "u.npy", "--check"], "the Jacobian is wrong: largest error nan"),
]


def one_line(done, code):
    """The error is one line on stderr, and nothing else is there."""
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("gpujac: error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_wrong_usage_is_one_line_and_exit_code_2(folder, arguments, message):
    """Whatever can be seen before the function runs is a wrong usage."""
    assert message in one_line(jacobian(folder, *arguments), 2)


@pytest.mark.parametrize(("arguments", "message"), FAILS)
def test_a_failing_function_is_one_line_and_exit_code_1(folder, arguments, message):
    """The line says where in the user's file, and what."""
    assert message in one_line(jacobian(folder, *arguments), 1)


def test_the_traceback_is_there_for_the_asking(folder):
    """--traceback shows the user's own lines."""
    done = jacobian(folder, "model.py:raises", "--at", "u.npy", "--traceback")
    assert done.returncode == 1
    assert 'raise ValueError(text + "' in done.stderr


@pytest.mark.parametrize("arguments", [[], ["unknown"]])
def test_a_missing_or_unknown_command_is_exit_code_2(folder, arguments):
    """One line says so."""
    one_line(command(folder, *arguments), 2)


def test_a_wrong_setting_in_the_environment_is_exit_code_2(folder):
    """The line names the variable."""
    done = command(folder, "info", environment={"GPUJAC_NVTX": "loud"})
    assert "GPUJAC_NVTX" in one_line(done, 2)


# ---------------------------------------------------------------- written whole or not at all


@pytest.mark.parametrize("name", ["raises", "hides_half_of_its_derivative"])
def test_an_old_file_survives_a_failure(folder, name):
    """A function that fails, or a wrong Jacobian, writes nothing."""
    (folder / "J.npz").write_bytes(b"old")
    done = jacobian(folder, f"model.py:{name}", "--at", "u.npy", "--check", "--out", "J.npz")
    assert done.returncode == 1
    assert (folder / "J.npz").read_bytes() == b"old"
    assert leftovers(folder) == []


@pytest.mark.parametrize("name", ["J.npy", "J.npz"])
def test_a_full_disk_leaves_the_old_file(folder, name):
    """A write that breaks off in the middle ends with one line and the old file."""
    resource = pytest.importorskip("resource", reason="limits on file sizes are a Unix thing")
    (folder / name).write_bytes(b"old")
    done = jacobian(
        folder, "model.py:single", "--at", "large.npy", "--out", name,
        environment={"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )  # fmt: skip
    assert f"{name} could not be written: " in one_line(done, 1)
    assert (folder / name).read_bytes() == b"old"
    assert leftovers(folder) == []


def test_write_whole_replaces_only_after_the_last_byte(tmp_path):
    """While the new file is written, the old one is still there."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write(handle):
        handle.write(b"new")
        assert path.read_bytes() == b"old"

    write_whole(path, write)
    assert path.read_bytes() == b"new"
    assert leftovers(tmp_path) == []


def test_write_whole_cleans_up_after_any_error(tmp_path):
    """An error inside the writer leaves no file at all."""

    def write(handle):
        handle.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a.bin", write)
    assert list(tmp_path.iterdir()) == []


def test_write_whole_says_why_it_could_not(tmp_path):
    """A missing folder is a CommandError with the system's reason."""
    with pytest.raises(CommandError, match=r"a\.bin could not be written: No such file"):
        write_whole(tmp_path / "missing" / "a.bin", lambda handle: None)


def test_interrupting_ends_with_130_and_no_file(folder):
    """Ctrl-C is one line, too."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = ["jacobian", "model.py:waits", "--at", "u.npy", "--out", "J.npy"]
    with subprocess.Popen(
        [sys.executable, "-m", "gpujac", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background may be started with the signal ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        deadline = time.monotonic() + 60
        while not (folder / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "gpujac: error: interrupted\n"
    assert not (folder / "J.npy").exists()


# ---------------------------------------------------------------- info and demo


def test_info_names_versions_backends_memory_and_settings(folder):
    """Each line has a name and a value."""
    done = command(folder, "info")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["numpy"].strip() == np.__version__
    assert "numpy" in lines["backends"]
    assert {"python", "gpujac", "cupy", "driver", "device", "gpu", "memory", "nvtx", "settings"} <= set(lines)


def test_demo_runs_and_writes_its_pictures(folder):
    """A small grid and few steps: the table, the steps, two pictures."""
    pytest.importorskip("matplotlib", reason="the pictures need the extra `plot`")
    (folder / "out").mkdir()
    done = command(folder, "demo", "--size", "5", "--steps", "115", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "Newton iterations with" in done.stdout
    names = ["brusselator_jacobian.png", "brusselator_solution.png"]
    assert sorted(path.name for path in (folder / "out").iterdir()) == names
    for name in names:
        assert (folder / "out" / name).read_bytes().startswith(b"\x89PNG")


def without_matplotlib(folder):
    """An environment where matplotlib cannot be imported."""
    (folder / "hidden" / "matplotlib").mkdir(parents=True)
    missing = "raise ModuleNotFoundError(\"No module named 'matplotlib'\")\n"
    (folder / "hidden" / "matplotlib" / "__init__.py").write_text(missing)
    return {"PYTHONPATH": os.pathsep.join([str(folder / "hidden"), str(ROOT)])}


def test_demo_without_matplotlib_says_what_to_install_and_goes_on(folder):
    """No pictures is no failure."""
    done = command(folder, "demo", "--size", "4", "--steps", "115", environment=without_matplotlib(folder))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "no pictures: pictures need matplotlib: pip install 'gpujac[plot]'\n"
    assert "Newton iterations with" in done.stdout


def test_demo_with_pictures_asked_for_needs_matplotlib(folder):
    """Asked for and not possible is exit code 2."""
    done = command(folder, "demo", "--pictures", environment=without_matplotlib(folder))
    assert "pip install 'gpujac[plot]'" in one_line(done, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "2"], "is not a whole number of at least 3"),
        (["--steps", "0"], "is not a whole number of at least 1"),
        (["--pictures", "--out", "missing"], "there is no such folder"),
    ],
)
def test_wrong_options_of_the_demo_are_exit_code_2(folder, arguments, message):
    """One line again."""
    assert message in one_line(command(folder, "demo", *arguments), 2)


def test_a_time_step_that_is_too_long_is_exit_code_1(folder):
    """Newton's failure is one line that says what to do."""
    done = command(folder, "demo", "--size", "4", "--steps", "3", "--no-pictures")
    assert "take more steps" in one_line(done, 1)
