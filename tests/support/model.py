"""A model of statuses, skips and diagnostics in plain Python, as the contract defines them; and small fields."""

from typing import Any

from hypothesis import strategies as st

from photometry_tasks import STATUS
from tests.support.lists import fill

OK, ERROR, ABORT, SKIPPED, STARTED = (STATUS[name].value for name in ("OK", "ERROR", "ABORT", "SKIPPED", "STARTED"))


class Model:
    """The tasks of a small field: contract 4, 5 and 7.

    On a shared list, a running task that is no longer skipped is STARTED, not pending: it is not handed out again.
    """

    def __init__(self, rows: list[dict[str, Any]], *, is_shared: bool = False) -> None:
        self.is_shared = is_shared
        self.running: set[int] = set()
        self.attempts: dict[int, int] = {}
        self.tasks = {row["priority"]: row for row in fill(rows)}
        self.status: dict[int, int | None] = dict.fromkeys(self.tasks)
        self.skips: set[tuple[int, int]] = set()
        self.diagnostics: set[int] = set()

    def back_to_pending(self, priority: int) -> None:
        freed = [rival for rival, by in self.skips if by == priority]
        self.status[priority] = STARTED if self.is_shared and priority in self.running else None
        self.diagnostics.discard(priority)
        self.skips = {skip for skip in self.skips if priority not in skip}
        for rival in freed:
            if self.status[rival] == SKIPPED and not any(skipped == rival for skipped, _ in self.skips):
                self.back_to_pending(rival)

    def start(self, priority: int) -> None:
        self.status[priority] = STARTED
        self.running.add(priority)

    def end(self, priority: int) -> None:
        self.running.discard(priority)
        self.attempts.pop(priority, None)

    def open(self, overwrite: bool = False, ccd: int | None = None) -> None:
        for priority in self.running if self.is_shared else ():  # its manager has ended
            if self.status[priority] == STARTED:
                self.status[priority] = None
        self.running.clear()
        self.attempts.clear()
        for priority, status in list(self.status.items()):
            if overwrite or (status in (STARTED, ABORT, ERROR) and ccd in (None, self.tasks[priority]["ccd"])):
                self.back_to_pending(priority)

    def pending(self, ccd: int | None = None) -> list[int]:
        return sorted(p for p, status in self.status.items() if status is None and ccd in (None, self.tasks[p]["ccd"]))

    def next(self, ccd: int | None = None) -> int | None:
        return next(iter(self.pending(ccd)), None)

    def save(self, priority: int, status: int, listed: list[int]) -> None:
        self.end(priority)
        if priority in self.diagnostics:
            self.back_to_pending(priority)
        this = self.tasks[priority]
        skipped_by, covered = self.decide(this, set(listed) - {this["starid"]})
        self.diagnostics.add(priority)
        self.status[priority] = SKIPPED if skipped_by else status
        if self.status[priority] != SKIPPED:
            self.skips = {skip for skip in self.skips if skip[0] != priority}
        if skipped_by and skipped_by > 0:
            self.skips.add((priority, skipped_by))
        for rival in covered:
            self.status[rival] = SKIPPED
            self.skips.add((rival, priority))

    def decide(self, this: dict[str, Any], listed: set[int]) -> tuple[int | None, list[int]]:
        others = [task for task in self.tasks.values() if task["starid"] in listed and task["ccd"] == this["ccd"]]
        source = this["datasource"]
        if source.startswith("tpf:") and int(source[4:]) in listed:
            primary = [t["priority"] for t in others if t["datasource"] == "tpf" and t["starid"] == int(source[4:])]
            return (primary or [-1])[0], []
        sources = {source, f"tpf:{this['starid']}"} if source == "tpf" else {source}
        rivals = [task for task in others if task["datasource"] in sources]
        if not rivals:
            return None, []
        by_brightness = sorted([this, *rivals], key=lambda t: (99 if t["tmag"] is None else t["tmag"], t["priority"]))
        if by_brightness[0] is this:
            return None, [rival["priority"] for rival in rivals]
        return by_brightness[0]["priority"], []


stars = st.integers(1, 5)
rows_of_a_field = st.lists(
    st.fixed_dictionaries(
        {
            "starid": stars,
            "datasource": st.sampled_from(["ffi", "tpf", "tpf:1", "tpf:2"]),
            "ccd": st.sampled_from([1, 1, 1, 2]),
            "tmag": st.sampled_from([None, -1.0, 0.0, 5.0, 5.0, 9.0]),
        }
    ),
    min_size=2,
    max_size=14,
    unique_by=lambda row: (row["starid"], row["datasource"], row["ccd"]),
)
