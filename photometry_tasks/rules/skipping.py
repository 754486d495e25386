"""The brightest-star rule: a task is skipped if a brighter star in the same aperture covers it. Pure."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple


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


class Neighbours(NamedTuple):
    """The stars and datasources whose tasks a decision needs."""

    starids: tuple[int, ...]
    datasources: tuple[str, ...]
    primary: int | None
    """The primary star of the target's pixel file, if it lies in the aperture; else None."""


class Decision(NamedTuple):
    """The new statuses of the target and of its rivals.

    Attributes
    ----------
    is_skipped : bool
        Whether the target is SKIPPED.
    skipped_by : int or None
        Priority of the task that covers the target, or None.
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


def build_decision(target: Target, neighbours: Neighbours, rivals: Sequence[Rival]) -> Decision:
    """Decide which tasks are skipped: all but the brightest star's.

    A secondary target is always skipped if the primary star of its pixel file lies in the aperture.

    Parameters
    ----------
    target : Target
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
    brightest = min(rivals, key=_faintness)
    if _faintness(target) < _faintness(brightest):
        return Decision(rivals=tuple(sorted(rivals, key=lambda rival: rival.priority)))
    return Decision(is_skipped=True, skipped_by=brightest.priority)


def _faintness(task: Target | Rival) -> tuple[bool, float, int]:
    """Return a key for sorting by magnitude: no magnitude counts as the faintest, a lower priority as brighter."""
    return task.tmag is None, task.tmag or 0.0, task.priority


def find_freed(chosen: Set[int], skippers: Mapping[int, Set[int]]) -> set[int]:
    """Return the chosen tasks, and along each chain of skips the tasks that no other task skips.

    Parameters
    ----------
    chosen : set of int
        Priorities of the tasks that return to pending.
    skippers : mapping
        For each SKIPPED task, the priorities of all tasks that skip it. Tasks that skip each other in a circle stay
        SKIPPED, unless one of them is chosen.
    """
    left = {priority: set(by) for priority, by in skippers.items()}
    skipped: dict[int, list[int]] = {}
    for priority, by in skippers.items():
        for skipper in by:
            skipped.setdefault(skipper, []).append(priority)
    freed, waiting = set(chosen), list(chosen)
    while waiting:
        skipper = waiting.pop()
        for priority in skipped.get(skipper, ()):
            left[priority].discard(skipper)
            if not left[priority] and priority not in freed:
                freed.add(priority)
                waiting.append(priority)
    return freed
