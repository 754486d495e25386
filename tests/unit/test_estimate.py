"""The estimate of the time left: a pure function of run times and numbers of tasks."""

import pytest

from photometry_tasks.rules.estimate import RunTimes, build_estimate

#: Results of half magnitude 80: two of full-frame images, of 1 and 3 h; of 81: one of a pixel file, of 10 h.
RUN_TIMES = {
    (80, "ffi"): RunTimes(2, 4 * 3600.0, 10 * 3600.0**2),
    (81, "tpf"): RunTimes(1, 10 * 3600.0, 100 * 3600.0**2),
}


@pytest.mark.parametrize(
    ("left", "hours"),
    [
        ({(80, "ffi"): 5}, 10),
        ({(90, "ffi"): 5, (None, "tpf"): 1}, 10 + 10),  # the mean of the datasource
        ({(80, "secondary"): 3}, 3 * 14 / 3),  # the mean of all
        ({}, 0),
    ],
)
def test_cpu_hours(left: dict[tuple[int | None, str], int], hours: float) -> None:
    """A task takes the mean time of its magnitude and datasource, otherwise of its datasource, otherwise of all."""
    found = build_estimate(RUN_TIMES, left, at_once=4)
    assert found["tasks"] == sum(left.values())
    assert found["cpu_hours"] == pytest.approx(hours)
    assert found["hours_low"] <= hours / 4 + 1e-9
    assert found["hours_high"] >= hours / 4 - 1e-9


def test_limits() -> None:
    """The limits are two standard deviations away: those of the tasks themselves, and of the mean."""
    found = build_estimate(RUN_TIMES, {(80, "ffi"): 2}, at_once=2)
    assert (found["hours_low"], found["hours_high"]) == pytest.approx((0.0, (4 + 2 * (2 + 2**2 / 2) ** 0.5) / 2))


@pytest.mark.parametrize(("run_times", "at_once"), [({}, 4.0), (RUN_TIMES, None)])
def test_what_is_not_known(run_times: dict[tuple[int | None, str], RunTimes], at_once: float | None) -> None:
    """Without run times nothing is known; without the times of results, only the sum of the run times."""
    found = build_estimate(run_times, {(80, "ffi"): 2}, at_once)
    assert found["tasks"] == 2
    assert (found["hours_low"], found["hours_high"]) == (None, None)
    assert found["cpu_hours"] == (4 if run_times else None)
