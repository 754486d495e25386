"""The brightest-star rule as a pure function."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photometry_tasks import STATUS
from photometry_tasks.rules.skipping import Decision, Neighbours, Rival, Target, build_decision, build_neighbours

FFI = Target(1, 101, "ffi", 9.0)
PRIMARY = Target(1, 101, "tpf", 9.0)
SECONDARY = Target(1, 101, "tpf:555", 9.0)


@pytest.mark.parametrize(
    ("target", "skip_targets", "neighbours"),
    [
        (FFI, [], None),
        (FFI, [101, 101], None),
        (FFI, [103, 101, 102, 103], Neighbours((102, 103), ("ffi",), None)),
        (PRIMARY, [101], None),
        (PRIMARY, [102], Neighbours((102,), ("tpf", "tpf:101"), None)),
        (SECONDARY, [102], Neighbours((102,), ("tpf:555",), None)),
        (SECONDARY, [102, 555], Neighbours((555,), ("tpf",), 555)),
        (SECONDARY, [101, 555], Neighbours((555,), ("tpf",), 555)),
        (SECONDARY, [55], Neighbours((55,), ("tpf:555",), None)),
        (Target(1, 555, "tpf:555", 9.0), [555], None),
        (Target(1, 101, "tpf:0", 9.0), [0], Neighbours((0,), ("tpf",), 0)),
        (Target(1, 101, "tpf:", 9.0), [102], Neighbours((102,), ("tpf:",), None)),
    ],
)
def test_neighbours(target: Target, skip_targets: list[int], neighbours: Neighbours | None) -> None:
    """The neighbours are the listed stars except the target's own or, if it is listed, only the primary."""
    assert build_neighbours(target, iter(skip_targets)) == neighbours


SKIPPED_BY_2 = Decision(is_skipped=True, skipped_by=2)
NO_PRIMARY = "TargetNotFoundError: Could not find primary TPF target (TIC 555)"


@pytest.mark.parametrize(
    ("tmag", "rivals", "decision"),
    [
        (9.0, [], Decision()),
        (9.0, [Rival(1, 3.0, None)], Decision()),  # its own row
        (9.0, [Rival(2, 9.5, None)], Decision(rivals=(Rival(2, 9.5, None),))),
        (9.0, [Rival(2, 8.5, None)], SKIPPED_BY_2),
        (9.0, [Rival(2, 9.0, None)], Decision(rivals=(Rival(2, 9.0, None),))),
        (9.0, [Rival(0, 9.0, None)], Decision(is_skipped=True, skipped_by=0)),
        (9.0, [Rival(3, 8.0, None), Rival(2, 8.0, None), Rival(4, 9.5, None)], SKIPPED_BY_2),
        (9.0, [Rival(2, None, 1)], Decision(rivals=(Rival(2, None, 1),))),
        (9.0, [Rival(3, None, None), Rival(2, 8.0, None)], SKIPPED_BY_2),
        (None, [Rival(2, 20.0, None)], SKIPPED_BY_2),
        (None, [Rival(2, None, None)], Decision(rivals=(Rival(2, None, None),))),
        (None, [Rival(0, None, None)], Decision(is_skipped=True, skipped_by=0)),
        (0.0, [Rival(2, -0.5, None)], SKIPPED_BY_2),
        (0.0, [Rival(2, -0.0, None)], Decision(rivals=(Rival(2, -0.0, None),))),
        (0.0, [Rival(0, None, None)], Decision(rivals=(Rival(0, None, None),))),
        (float("inf"), [Rival(0, None, None)], Decision(rivals=(Rival(0, None, None),))),
        (1.0, [Rival(3, 5.0, 6), Rival(2, 5.0, 1)], Decision(rivals=(Rival(2, 5.0, 1), Rival(3, 5.0, 6)))),
    ],
)
def test_decisions(tmag: float | None, rivals: list[Rival], decision: Decision) -> None:
    """The brightest star covers all rivals; a lower priority counts as brighter, and no magnitude as the faintest."""
    target = FFI._replace(tmag=tmag)
    assert build_decision(target, STATUS.OK, Neighbours((102,), ("ffi",), None), rivals) == decision


@pytest.mark.parametrize(
    ("rivals", "decision"),
    [
        ([Rival(2, 20.0, None)], SKIPPED_BY_2),
        ([Rival(2, None, 5)], SKIPPED_BY_2),
        ([], Decision(is_skipped=True, error=NO_PRIMARY)),
        ([Rival(1, 5.0, None)], Decision(is_skipped=True, error=NO_PRIMARY)),
    ],
)
def test_a_secondary_whose_primary_is_listed(rivals: list[Rival], decision: Decision) -> None:
    """If its primary is in the list, a secondary of any magnitude is skipped; a missing task is an error too."""
    assert build_decision(SECONDARY, STATUS.ERROR, Neighbours((555,), ("tpf",), 555), rivals) == decision


magnitudes = st.none() | st.sampled_from([-1.0, -0.0, 0.0, 9.0, float("inf")]) | st.floats(-2, 20)


@settings(max_examples=25)
@given(tmags=st.lists(magnitudes, min_size=2, max_size=5), data=st.data())
def test_exactly_one_of_an_aperture_is_not_skipped(tmags: list[float | None], data: st.DataObject) -> None:
    """If all stars of an aperture list each other, one task covers all others, in any order of the rows."""
    tasks = [Rival(number, tmag, None) for number, tmag in enumerate(tmags)]
    neighbours = Neighbours((102,), ("ffi",), None)
    decisions = {}
    for task in tasks:
        rivals = data.draw(st.permutations([rival for rival in tasks if rival is not task]))
        before = list(rivals)
        target = Target(task.priority, 101, "ffi", task.tmag)
        decisions[task] = build_decision(target, STATUS.WARNING, neighbours, rivals)
        assert rivals == before
    ((winner, decision),) = [(task, made) for task, made in decisions.items() if not made.is_skipped]
    assert decision.rivals == tuple(task for task in tasks if task is not winner)
    assert {made.skipped_by for made in decisions.values()} == {None, winner.priority}
