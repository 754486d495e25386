"""The brightest-star rule: a task is skipped if a brighter star in the same aperture covers it. Pure.

`build_decision` gives the statement of one result on its task and on its neighbours; `settle` gives the state that
follows from the statements of all results.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from photometry_tasks.status import COVERS_NONE, STATUS


class Target(NamedTuple):
    """The task whose result is being saved, with the values of that result."""

    priority: int
    starid: int
    datasource: str
    tmag: float | None


class Rival(NamedTuple):
    """A task of another star in the aperture, with the target's sector, camera, CCD and cadence."""

    priority: int
    tmag: float | None
    status: int | None
    has_caused_skips: bool = False
    """Whether its own result has skipped it, or has skipped other tasks."""


class Neighbours(NamedTuple):
    """The stars and datasources whose tasks a decision needs."""

    starids: tuple[int, ...]
    datasources: tuple[str, ...]
    primary: int | None
    """The primary star of the target's pixel file, if it lies in the aperture; else None."""


class Decision(NamedTuple):
    """The statement of a result on its task and on the task's rivals; it counts for nothing while the task is covered.

    Attributes
    ----------
    is_skipped : bool
        Whether the target is SKIPPED.
    skipped_by : int or None
        Priority of the brightest task in the aperture if the target is SKIPPED, or None.
    rivals : tuple of Rival
        The tasks that the target covers; they become SKIPPED.
    error : str or None
        A message for the errors of the diagnostics.
    """

    is_skipped: bool = False
    skipped_by: int | None = None
    rivals: tuple[Rival, ...] = ()
    error: str | None = None


def build_neighbours(target: Target, skip_targets: Iterable[int]) -> Neighbours | None:
    """Return which tasks to look up, or None if the target is alone in its aperture.

    Parameters
    ----------
    target : Target
    skip_targets : iterable of int
        Ids of the stars in the aperture; the target's own id is ignored.
    """
    starids = tuple(sorted(set(skip_targets) - {target.starid}))
    if not starids:
        return None
    primary = next((starid for starid in starids if target.datasource == f"tpf:{starid}"), None)
    if primary is not None:
        return Neighbours((primary,), ("tpf",), primary)
    if target.datasource == "tpf":
        return Neighbours(starids, ("tpf", f"tpf:{target.starid}"), None)
    return Neighbours(starids, (target.datasource,), None)


def build_decision(target: Target, status: STATUS, neighbours: Neighbours, rivals: Sequence[Rival]) -> Decision:
    """Decide which tasks are skipped: all but the brightest star's.

    A secondary target is always skipped if the primary star of its pixel file lies in the aperture. A star that could
    not be measured covers no other.

    Parameters
    ----------
    target : Target
    status : STATUS
        The status of the result.
    neighbours : Neighbours
        The result of `build_neighbours`.
    rivals : sequence of Rival
        The tasks that match `neighbours`.

    Returns
    -------
    Decision
    """
    rivals = [rival for rival in rivals if rival.priority != target.priority]
    if neighbours.primary is not None:
        if rivals:
            return Decision(is_skipped=True, skipped_by=rivals[0].priority)
        error = f"TargetNotFoundError: Could not find primary TPF target (TIC {neighbours.primary})"
        return Decision(is_skipped=True, error=error)
    if not rivals:
        return Decision()
    brightest = min(rivals, key=_get_faintness)
    if _get_faintness(brightest) < _get_faintness(target):
        return Decision(is_skipped=True, skipped_by=brightest.priority)
    if status in COVERS_NONE:
        return Decision()
    return Decision(rivals=tuple(sorted(rivals, key=lambda rival: rival.priority)))


def _get_faintness(task: Target | Rival) -> tuple[bool, float, int]:
    return get_faintness(task.priority, task.tmag)


def get_faintness(priority: int, tmag: float | None) -> tuple[bool, float, int]:
    """Return a key for sorting by brightness: no magnitude counts as the faintest, a lower priority as brighter."""
    if not isinstance(tmag, float | int) or tmag != tmag:  # SQLite takes a text or bytes too, PostgreSQL NaN
        tmag = None
    return tmag is None, tmag or 0.0, priority


class Said(NamedTuple):
    """A result: its status, and what it says of its task and of the task's rivals."""

    status: int
    decision: Decision


class Settled(NamedTuple):
    """The statuses of tasks, None for pending, and the skips: the SKIPPED task and the one that covers it."""

    statuses: dict[int, int | None]
    skips: set[tuple[int, int]]


def settle(by_brightness: Iterable[int], results: Mapping[int, Said]) -> Settled:
    """Return the state that results give, in whatever order they came: the whole rule.

    It is the state of one worker who takes the tasks in order of brightness and runs none that is covered. A result
    covers fainter tasks only, so that each task is decided before the tasks that it may cover.

    Parameters
    ----------
    by_brightness : iterable of int
        The priorities of all tasks, the brightest first.
    results : mapping
        The stored results, by the priorities of their tasks.
    """
    settled = Settled({}, set())
    covered_by: dict[int, list[int]] = {}
    for priority in by_brightness:
        result = results.get(priority)
        if priority in covered_by:
            settled.statuses[priority] = STATUS.SKIPPED.value
            settled.skips.update((priority, cover) for cover in covered_by[priority])
        elif result is None:
            settled.statuses[priority] = None
        else:
            decision = result.decision
            settled.statuses[priority] = STATUS.SKIPPED.value if decision.is_skipped else result.status
            if decision.skipped_by is not None:
                settled.skips.add((priority, decision.skipped_by))
            for rival in decision.rivals:
                covered_by.setdefault(rival.priority, []).append(priority)
    return settled


def find_freed(chosen: Set[int], covers: Mapping[int, Set[int]]) -> tuple[set[int], set[int]]:
    """Return the tasks that a reset returns to pending, and the chosen tasks that others still cover.

    Parameters
    ----------
    chosen : set of int
        Priorities of the tasks to reset.
    covers : mapping
        For each SKIPPED or chosen task, the priorities of all tasks that cover it. In a list of an older release, a
        task that is SKIPPED itself may cover others; tasks that cover each other stay SKIPPED, unless one of them is
        chosen.
    """
    left = {priority: set(by) for priority, by in covers.items()}
    covered: dict[int, list[int]] = {}
    for priority, by in covers.items():
        for cover in by:
            covered.setdefault(cover, []).append(priority)
    taken_out, waiting = set(chosen), list(chosen)
    while waiting:
        cover = waiting.pop()
        for priority in covered.get(cover, ()):
            left[priority].discard(cover)
            if not left[priority] and priority not in taken_out:
                taken_out.add(priority)
                waiting.append(priority)
    still = {priority for priority in chosen if left.get(priority)}
    return taken_out - still, still
