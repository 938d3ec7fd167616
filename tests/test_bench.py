"""Claims about the arithmetic of `make bench`: medians, ratios, the void rule, the tables.

Nothing here is timed: the clock is a counter that the measured calls move themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

import gpujac as gj
from profiling import bench, environment, memory, report
from profiling.bench import all_cases
from profiling.cases import chain, elementwise, logistic, robertson
from profiling.libraries import Library
from profiling.memory_cases import memory_cases
from profiling.protocol import (
    LIMIT,
    REPEATS,
    Effort,
    Timing,
    batch,
    calibrate,
    drift,
    interleave,
    time_case,
)
from profiling.report import Row, Target
from profiling.sweep_cases import FORMS, grid
from profiling.transform_cases import custom_sines, deep, mixed, mostly_constant, op_sines, sines
from profiling.values import difference


class FakeClock:
    """A clock that only moves when a call says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def call(self, seconds: float) -> Callable[[], None]:
        def advance() -> None:
            self.now += seconds

        return advance


def probes(*times_s: float) -> Callable[[], float]:
    """Return a probe that answers `times_s` one after the other."""
    answers: Iterator[float] = iter(times_s)
    return lambda: next(answers)


def row(**changes: object) -> Row:
    """Return a row with a ratio of 0.25 to torch, 0.5 us per op."""
    values = {"gpujac": 1e-4, "torch": 4e-4}
    facts = {"name": "c", "title": "t", "unit": "s", "targets": (), "ops": 200, "values": values}
    return Row(**(facts | changes))


# the protocol


def test_batch_is_the_time_of_all_its_calls() -> None:
    clock = FakeClock()
    assert batch(clock.call(0.5), 4, clock) == 2.0


@pytest.mark.parametrize(("seconds", "expected"), [(0.001, 20), (0.004, 5), (1.0, 1), (30.0, 1)])
def test_calibrate_fills_the_batch_and_never_returns_zero(seconds: float, expected: int) -> None:
    clock = FakeClock()
    assert calibrate(clock.call(seconds), 0.02, clock) == expected


def test_interleave_takes_turns_and_starts_each_round_one_library_later() -> None:
    order: list[str] = []
    clock = FakeClock()

    def named(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    calls = {name: named(name) for name in "abc"}
    interleave(calls, {"a": 1, "b": 2, "c": 1}, 3, clock)
    assert "".join(order) == "abbc" + "bbca" + "cabb"


def test_interleave_returns_seconds_per_call() -> None:
    clock = FakeClock()
    calls = {"a": clock.call(2.0), "b": clock.call(3.0)}
    found = interleave(calls, {"a": 5, "b": 1}, 2, clock)
    assert found == {"a": [2.0, 2.0], "b": [3.0, 3.0]}


def test_median_is_over_rounds_so_one_slow_round_does_not_move_it() -> None:
    timing = Timing({"a": [1.0, 50.0, 3.0]}, 1.0, 1.0)
    assert timing.medians_s == {"a": 3.0}


@pytest.mark.parametrize(("before", "after"), [(1.0, 1.25), (1.25, 1.0)])
def test_drift_is_the_same_whether_the_machine_slows_or_speeds_up(before: float, after: float) -> None:
    assert drift(before, after) == pytest.approx(0.25)


@pytest.mark.parametrize(("after", "void"), [(1.09, False), (1.11, True), (0.92, False), (0.9, True)])
def test_a_run_is_void_when_the_probe_moved_by_more_than_ten_percent(after: float, void: bool) -> None:
    assert LIMIT == 0.10
    assert Timing({}, 1.0, after).void is void


def test_a_void_run_is_repeated_and_the_first_good_one_counts() -> None:
    clock = FakeClock()
    timing = time_case({"a": clock.call(0.1)}, Effort(2, 0.1), probes(1.0, 2.0, 1.0, 1.01), clock, clock)
    assert not timing.void
    assert timing.attempts == 2


def test_runs_that_stay_void_are_given_up_and_the_calmest_is_shown_as_void() -> None:
    clock = FakeClock()
    answers = (1.0, 2.0, 1.0, 1.2, 1.0, 3.0, 1.0, 1.5)
    timing = time_case({"a": clock.call(0.1)}, Effort(1, 0.1), probes(*answers), clock, clock)
    assert REPEATS == 3
    assert timing.attempts == 4
    assert timing.void
    assert timing.drift == pytest.approx(0.2)


def test_a_run_is_void_when_another_process_had_the_core_however_steady_the_probe() -> None:
    clock = FakeClock()
    timing = time_case({"a": clock.call(0.1)}, Effort(1, 0.1), lambda: 1.0, clock, cpu_clock=lambda: 0.8 * clock.now)
    assert timing.cpu_share == pytest.approx(0.8)
    assert timing.void
    assert timing.attempts == 1 + REPEATS
    assert not Timing({}, 1.0, 1.0, cpu_share=0.95).void


# values


def test_equal_values_agree_within_the_tolerance() -> None:
    a = np.array([1.0, 100.0])
    assert difference(a, a + 1e-9, 1e-9) is None


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.ones(3), "shape (3,) instead of (2,)"),
        (np.ones(2, np.float32), "dtype float32 instead of float64"),
        ((np.ones(2), np.ones(2)), "2 arrays instead of 1"),
        (np.array([1.0, 1.1]), "differs by 0.1 "),
        (np.array([1.0, np.nan]), "differs by nan"),
        (np.array([1.0, np.inf]), "differs by inf"),
    ],
)
def test_a_difference_says_what_differs(result: object, message: str) -> None:
    assert message in str(difference(np.ones(2), result, 1e-9))


def test_empty_results_agree() -> None:
    assert difference(np.ones((0, 3)), np.ones((0, 3)), 1e-9) is None


def test_a_library_that_computes_something_else_fails_the_row() -> None:
    def library(name: str, factor: float) -> Library:
        return Library(name, np, {"jacrev": lambda f: lambda x: factor * x})

    libraries = {"gpujac": library("gpujac", 1.0), "torch": library("torch", 1.5)}
    found = report.Row("c", "t", "s", ())
    calls = bench.agreeing_calls(all_cases()["robertson-jacrev"], libraries, found)
    assert set(calls) == {"gpujac", "torch"}
    assert set(found.differences) == {"torch"}
    assert found.verdict() == "VALUES DIFFER"
    assert found.failed()


def test_a_peer_that_raises_is_reported_and_does_not_fail_the_row() -> None:
    def refuse(f: object) -> object:
        raise NotImplementedError("no rule")

    libraries = {
        "gpujac": Library("gpujac", np, {"jacrev": lambda f: f}),
        "torch": Library("torch", np, {"jacrev": refuse}),
    }
    found = report.Row("c", "t", "s", ())
    bench.agreeing_calls(all_cases()["robertson-jacrev"], libraries, found)
    assert found.errors == {"torch": "NotImplementedError: no rule"}
    assert not found.failed()


@pytest.mark.parametrize(("quotient", "expected"), [(False, 3e-4), (True, 4.0)])
def test_a_case_is_compared_with_the_one_beside_it(quotient: bool, expected: float) -> None:
    plain = all_cases()["robertson-jacrev"]
    case = replace(plain, beside=plain, quotient=quotient)
    timing = Timing({"gpujac": [4e-4, 4e-4, 9.0], "gpujac beside": [1e-4, 1e-4, 1e-4]}, 1.0, 1.0)
    assert bench.compared(case, timing) == {"gpujac": pytest.approx(expected)}
    assert bench.compared(plain, timing) == timing.medians_s
    libraries = {"gpujac": Library("gpujac", np, {"jacrev": lambda f: f})}
    calls = bench.agreeing_calls(case, libraries, report.Row("c", "t", "s", ()))
    assert set(calls) == {"gpujac", "gpujac beside"}


# targets and tables


@pytest.mark.parametrize(
    ("target", "measured"),
    [
        (Target("ratio", 0.35, "torch"), 0.25),
        (Target("us_per_op", 3.0), 0.5),
        (Target("value", 1.15), 1e-4),
        (Target("ratio", 0.35, "jax"), None),
    ],
)
def test_each_kind_of_target_measures_its_own_number(target: Target, measured: float | None) -> None:
    found = row().measured(target)
    assert found == (None if measured is None else pytest.approx(measured))


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"targets": (Target("ratio", 0.25, "torch"),)}, "yes"),
        ({"targets": (Target("ratio", 0.2, "torch"),)}, "no: 0.25 <= 0.2 x torch"),
        ({"targets": (Target("ratio", 0.35, "jax"),)}, "-"),
        ({"targets": (Target("us_per_op", 0.4),), "void": True}, "void"),
        ({"errors": {"gpujac": "broken"}}, "failed"),
        ({"errors": {"torch": "broken"}}, "yes"),
        ({"differences": {"torch": "off"}, "void": True}, "VALUES DIFFER"),
    ],
)
def test_verdict(changes: dict[str, object], verdict: str) -> None:
    assert row(**changes).verdict() == verdict


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.12e-4, "412 us"),
        (1.7e-3, "1.70 ms"),
        (0.0234, "23.4 ms"),
        (9.996e-6, "10.0 us"),
        (0.9994e-3, "999 us"),
        (0.9996e-3, "1.00 ms"),
        (2.5, "2.50 s"),
        (1234.0, "1234 s"),
    ],
)
def test_a_duration_has_three_digits_and_a_unit(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


def test_table_shows_medians_ratios_time_per_op_targets_and_verdict() -> None:
    targets = (Target("ratio", 0.35, "torch"), Target("us_per_op", 3.0))
    lines = report.table([row(targets=targets)]).splitlines()
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == [
        "c",
        "100 us",
        "-",
        "400 us",
        "-",
        "-",
        "0.25",
        "-",
        "0.50",
        "<= 0.35 x torch, <= 3 us/op",
        "yes",
    ]
    assert len({len(line) for line in lines}) == 1


def test_table_of_memory_rows_shows_multiples_of_the_jacobian() -> None:
    found = row(unit="x J", ops=None, values={"gpujac": 1.06, "torch": 2.12})
    assert "1.06 x J" in report.table([found])
    assert "0.50" in report.table([found])


def test_notes_say_how_busy_the_machine_was() -> None:
    found = row(void=True, details={"probe_drift": 0.31, "cpu_share": 0.875}, errors={"jax": "broken"})
    assert report.notes([found]) == [
        "c: jax: broken",
        "c: void, the probe moved by 31%, the process had 88% of its core",
    ]


def test_results_hold_machine_versions_and_commit_and_no_path() -> None:
    machine = environment.describe()
    rows = [row(targets=(Target("ratio", 0.35, "torch"),))]
    text = report.as_json(rows, machine)
    data = json.loads(text)
    assert set(data["machine"]) >= {"cpu", "cores", "versions", "commit"}
    assert data["rows"][0]["values"]["torch"] == 4e-4
    assert data["rows"][0]["verdict"] == "yes"
    page = report.as_markdown(rows, machine, "2025-01-31")
    assert page.startswith("# make bench, 2025-01-31, CPU\n")
    assert str(environment.ROOT) not in text + page


# the environment


def test_one_thread_variables_are_asked_for_where_they_are_missing_or_differ() -> None:
    wanted = environment.SINGLE_THREAD
    assert environment.missing_variables({}) == wanted
    assert environment.missing_variables(dict(wanted)) == {}
    assert environment.missing_variables(wanted | {"OMP_NUM_THREADS": "2"}) == {"OMP_NUM_THREADS": "1"}


# the cases


def test_the_cases_ask_what_was_promised() -> None:
    asked = {name: [str(t) for t in case.targets] for name, case in all_cases().items()}
    layers = ["<= 0.5 x torch", "<= 1.3 x jax"]
    assert asked == {
        "chain-grad": ["<= 0.35 x autograd", "<= 0.35 x torch", "<= 3 us/op"],
        "chain-grad-grad": ["<= 0.3 x autograd", "<= 0.3 x torch"],
        "chain-jvp": ["<= 3 us/op"],
        "chain-vmap": ["<= 2 us/op"],
        "layers-jacrev": layers,
        "layers-jacfwd": layers,
        "network-jacrev": ["<= 0.75 x torch"],
        "robertson-jacrev": ["<= 0.3 x torch"],
        "robertson-vmap-jacrev": ["<= 0.5 x torch", "<= 1.3 x jax"],
        "elementwise-jacrev": ["<= 0.1 x jax"],
        "elementwise-jacfwd": ["<= 1 x jax"],
        "logistic-hessian": ["<= 0.12 x torch", "<= 1.3 x jax"],
        "vmap-chain": ["<= 1 x torch"],
        "vmap-mixed": ["<= 1 x torch"],
        "vmap-chain-overhead": ["<= 1 x torch"],
        "vmap-mixed-overhead": ["<= 1 x torch"],
        "jvp-constants": ["<= 0.1 x torch"],
        "jvp-scaled": ["<= 0.1 x torch"],
        "reads-100": [],
        "reads-1000": [],
        "reads-10000": [],
        "reads-growth": ["<= 12 x"],
        "custom-vjp": ["<= 5 us/op"],
        "custom-op": ["<= 5 us/op"],
        "checkpoint-16": ["<= 6 x"],
        "checkpoint-100000": ["<= 2 x"],
        "brusselator-roll-32": ["<= 1.3 x jax"],
        "brusselator-slices-32": ["<= 1.3 x jax"],
        "brusselator-pad-32": ["<= 1.3 x jax"],
        "brusselator-roll-64": ["<= 1.3 x jax"],
        "brusselator-slices-64": ["<= 1.3 x jax"],
        "brusselator-pad-64": ["<= 1.3 x jax"],
    }
    assert {name: case.at_most for name, case in memory_cases().items()} == {
        "memory-preallocate": 1.15,
        "memory-stack": 2.15,
        "memory-brusselator-roll-32": 1.2,
        "memory-brusselator-roll-64": 1.2,
        "memory-brusselator-slices-64": 1.2,
    }


class CountingNumpy:
    """NumPy that counts the elementwise functions called through it."""

    def __init__(self) -> None:
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        def counted(*args: object) -> object:
            self.calls += 1
            return getattr(np, name)(*args)

        return counted


def test_the_chain_is_one_hundred_sines_and_as_many_products() -> None:
    counting = CountingNumpy()
    value = chain(counting)(0.5)
    assert counting.calls == 100
    assert all_cases()["chain-grad"].ops == 200
    assert 0.0 < value < 0.5


def test_the_elementwise_chain_is_twenty_ops() -> None:
    counting = CountingNumpy()  # tanh and sin; the product and the sum are operators
    elementwise(counting)(np.ones(3))
    assert 2 * counting.calls == 20


@pytest.mark.parametrize(
    ("program", "constants", "functions"),
    [(mixed, {}, 60), (mostly_constant, {"c": np.ones(3)}, 100), (sines, {}, 101), (deep, {}, 25)],
)
def test_the_programs_do_as_many_functions_as_they_say(program, constants, functions) -> None:
    counting = CountingNumpy()
    program(counting, **constants)(np.ones(3))
    assert counting.calls == functions


@pytest.mark.parametrize("again", [custom_sines, op_sines])
def test_functions_with_own_derivatives_are_sines(again) -> None:
    f = sines(np)
    slope = (f(0.5 + 1e-6) - f(0.5 - 1e-6)) / 2e-6
    for g in (again(np), f):
        assert gj.grad(g)(0.5) == pytest.approx(slope, rel=1e-6)


def test_robertson_conserves_mass() -> None:
    rates = robertson(np)(np.array([0.9, 2e-5, 0.1]))
    assert rates.shape == (3,)
    assert abs(rates.sum()) < 1e-12


def test_logistic_loss_at_zero_is_log_two() -> None:
    loss = logistic(np, np.ones((4, 2)), np.array([1.0, -1.0, 1.0, 1.0]))
    assert loss(np.zeros(2)) == pytest.approx(np.log(2.0))


def test_all_inputs_and_constants_are_double_precision() -> None:
    for case in all_cases().values():
        for value in (*case.inputs, *case.constants.values()):
            assert np.asarray(value).dtype == np.float64


def test_memory_case_notices_a_wrong_jacobian() -> None:
    case = memory_cases()["memory-preallocate"]
    x = case.point(6)
    f, eye = case.program(np, 6), np.eye(6)
    wide = x.astype(np.float64)
    columns = [(f(wide + 1e-6 * e) - f(wide - 1e-6 * e)) / 2e-6 for e in eye]
    jacobian = np.stack(columns, axis=1).astype(np.float32)
    assert memory.relative_error(case, jacobian, 6) < 1e-5
    assert memory.relative_error(case, jacobian.T, 6) > 1e-2


def test_memory_ratio_is_extra_over_jacobian() -> None:
    assert memory.Peak(212, 100, 1.0, 0.0).ratio == 2.12


def test_the_brusselator_is_the_same_in_all_formulations() -> None:
    y = grid(5)
    first = FORMS["roll"](np, 5)(y)
    assert first.shape == (2, 5, 5)
    for form in FORMS.values():
        np.testing.assert_allclose(form(np, 5)(y), first, rtol=1e-12)
    # diffusion moves what reacts from place to place, and makes none
    u = y[0]
    np.testing.assert_allclose(first.sum(), (1.0 - u).sum(), rtol=1e-9)
