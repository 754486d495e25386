"""Which tasks need not be run, since a brighter star in the same aperture covers them. Pure: rows in, decision out."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Target(NamedTuple):
    """The task whose result is being saved, as its result has it."""

    priority: int
    starid: int
    datasource: str
    tmag: float | None


class Rival(NamedTuple):
    """A task of a star in the aperture, in the same sector, camera, ccd and cadence as the target."""

    priority: int
    tmag: float | None
    status: int | None


class Neighbours(NamedTuple):
    """The tasks that a decision needs: those of these stars with these datasources."""

    starids: tuple[int, ...]
    datasources: tuple[str, ...]
    primary: int | None
    """The star whose pixel file the target was found in, where that star itself lies in the aperture."""


class Decision(NamedTuple):
    """What becomes of the target and of its rivals.

    Attributes
    ----------
    is_skipped : bool
        Whether the target is SKIPPED.
    skipped_by : int or None
        Priority of the task that covers the target, where there is one.
    rivals : tuple of Rival
        The tasks that the target covers; they are SKIPPED.
    error : str or None
        What is to be added to the diagnostics' errors.
    """

    is_skipped: bool = False
    skipped_by: int | None = None
    rivals: tuple[Rival, ...] = ()
    error: str | None = None


def build_neighbours(target: Target, skip_targets: Iterable[int]) -> Neighbours | None:
    """Say which tasks to look up; None if the target is alone in its aperture.

    Parameters
    ----------
    target : Target
    skip_targets : iterable of int
        Star ids in the aperture; the target's own is ignored.
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
    """Decide who is skipped: all but the brightest.

    Parameters
    ----------
    target : Target
    neighbours : Neighbours
        What `build_neighbours` asked for.
    rivals : sequence of Rival
        The tasks that were found.

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
    """Order by magnitude: without one counts as the faintest, and of equals the lower priority is the brighter."""
    return task.tmag is None, task.tmag or 0.0, task.priority
