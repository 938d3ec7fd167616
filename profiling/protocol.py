"""How a case is timed: interleaved rounds, medians, and when a run is declared void."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

Call = Callable[[], object]
Clock = Callable[[], float]

LIMIT = 0.10  # a run is void when the probe moved, or its core was taken away, by more than this
REPEATS = 3  # how often a void run is repeated before it is given up


@dataclass(frozen=True)
class Effort:
    """How much work goes into one case: `rounds` batches per library, each of `batch_s`."""

    rounds: int = 21
    batch_s: float = 0.02


@dataclass(frozen=True)
class Timing:
    """One case, timed: seconds per call, one entry per round, and how calm the machine was.

    `cpu_share` is the CPU time of the process over the time that passed during the rounds: below
    1 another process had the core. A machine that is busy throughout shows only there.
    """

    rounds_s: dict[str, list[float]]
    probe_before_s: float
    probe_after_s: float
    cpu_share: float = 1.0
    attempts: int = 1

    @property
    def medians_s(self) -> dict[str, float]:
        """Return the median over the rounds, per library."""
        return {name: statistics.median(rounds) for name, rounds in self.rounds_s.items()}

    @property
    def drift(self) -> float:
        """Return by how much the probe moved, as a share of the smaller of its two times."""
        return drift(self.probe_before_s, self.probe_after_s)

    @property
    def disturbance(self) -> float:
        """Return the larger of the two signs of a busy machine."""
        return max(self.drift, 1.0 - self.cpu_share)

    @property
    def void(self) -> bool:
        """Tell whether the machine was disturbed, so that the numbers prove nothing."""
        return self.disturbance > LIMIT


def drift(before_s: float, after_s: float) -> float:
    """Return how far two probe times are apart; the same in both orders."""
    low, high = sorted((before_s, after_s))
    return high / low - 1.0


def time_case(
    calls: Mapping[str, Call],
    effort: Effort,
    probe: Callable[[], float],
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
) -> Timing:
    """Time `calls` side by side; repeat a void run; of void runs alone keep the calmest."""
    timings: list[Timing] = []
    while len(timings) <= REPEATS:
        timings.append(_attempt(calls, effort, probe, clock, cpu_clock))
        if not timings[-1].void:
            break
    calmest = min(timings, key=lambda timing: timing.disturbance)
    return replace(calmest, attempts=len(timings))


def _attempt(
    calls: Mapping[str, Call],
    effort: Effort,
    probe: Callable[[], float],
    clock: Clock,
    cpu_clock: Clock,
) -> Timing:
    """Run all rounds once, between two probes."""
    counts = {name: calibrate(call, effort.batch_s, clock) for name, call in calls.items()}
    before_s = probe()
    start_s, cpu_start_s = clock(), cpu_clock()
    rounds_s = interleave(calls, counts, effort.rounds, clock)
    share = (cpu_clock() - cpu_start_s) / (clock() - start_s)
    return Timing(rounds_s, before_s, probe(), share)


def interleave(
    calls: Mapping[str, Call], counts: Mapping[str, int], rounds: int, clock: Clock
) -> dict[str, list[float]]:
    """Return seconds per call, per library and round; each round starts one library later."""
    names = list(calls)
    rounds_s: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        start = index % len(names)
        for name in names[start:] + names[:start]:
            gc.collect()
            rounds_s[name].append(batch(calls[name], counts[name], clock) / counts[name])
    return rounds_s


def batch(call: Call, count: int, clock: Clock) -> float:
    """Return the seconds that `count` calls in a row take."""
    start = clock()
    for _ in range(count):
        call()
    return clock() - start


def calibrate(call: Call, batch_s: float, clock: Clock) -> int:
    """Return how many calls fill a batch of `batch_s`; at least 1."""
    call()  # warm: compile, fill caches
    count = 1
    while True:
        taken_s = batch(call, count, clock)
        if taken_s >= batch_s / 4:
            return max(1, round(count * batch_s / taken_s))
        count *= 4


def numpy_probe(clock: Clock = time.perf_counter) -> Callable[[], float]:
    """Return a probe: the median time in seconds of a fixed piece of NumPy and Python work.

    It mixes the three things that the cases live on: interpreter steps, vector functions, a
    matrix product. Both libraries and gpujac are absent, so only the machine can move it.
    """
    vector = np.linspace(0.0, 1.0, 5000)
    matrix = np.linspace(0.0, 1.0, 96 * 96).reshape(96, 96)

    def work() -> None:
        total = 0.0
        for step in range(4000):
            total += step * 0.5
        for _ in range(4):
            np.tanh(vector)
            np.matmul(matrix, matrix)

    def probe() -> float:
        return statistics.median(batch(work, 1, clock) for _ in range(41))

    work()
    return probe
