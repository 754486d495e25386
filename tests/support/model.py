"""A model of statuses, skips and diagnostics in plain Python, as the contract defines them; and small fields."""

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from photometry_tasks import STATUS
from photometry_tasks.rules.skipping import Decision, Rival, Said, get_faintness, settle
from tests.support.lists import fill

OK, WARNING, ERROR, ABORT, SKIPPED, STARTED = (
    STATUS[name].value for name in ("OK", "WARNING", "ERROR", "ABORT", "SKIPPED", "STARTED")
)

#: Only tasks with equal values in these columns are neighbours.
FIELD = ("sector", "camera", "ccd", "cadence")


class Model:
    """The tasks of a small field: contract 4, 5 and 7. `settle` is the oracle; here results come and go."""

    def __init__(self, rows: list[dict[str, Any]], *, is_shared: bool = False) -> None:
        self.is_shared = is_shared
        self.running: set[int] = set()
        self.started: set[int] = set()  # also by managers of former openings
        self.attempts: dict[int, int] = {}
        self.tasks = {row["priority"]: row for row in fill(rows)}
        self.by_brightness = sorted(self.tasks, key=lambda p: get_faintness(p, self.tasks[p]["tmag"]))
        #: The results, also those of tasks that are covered: these count for nothing.
        self.results: dict[int, Said] = {}
        self.covered: set[int] = set()
        self.settle()

    @property
    def diagnostics(self) -> set[int]:
        return set(self.results)

    def settle(self) -> None:
        """Compute the state anew; a task that is no longer covered loses its result."""
        while True:
            self.status, self.skips = settle(self.by_brightness, self.results)
            rivals = {(r.priority, p) for p, said in self.results.items() for r in said.decision.rivals}
            covered = {rival for rival, cover in rivals & self.skips if self.status[cover] != SKIPPED}
            freed = self.results.keys() & (self.covered - covered)
            if not freed:
                break
            for priority in freed:
                del self.results[priority]
        self.covered = covered
        self.started -= covered - self.running
        self.status |= {p: STARTED for p in self.started if self.status[p] is None}

    def reset(self, priorities: Iterable[int]) -> None:
        for priority in priorities:
            self.results.pop(priority, None)
        self.settle()

    def start(self, priority: int) -> None:
        self.running.add(priority)
        self.started.add(priority)
        self.settle()

    def end(self, priority: int) -> None:
        self.running.discard(priority)
        self.started.discard(priority)
        self.attempts.pop(priority, None)
        self.settle()

    def open(self, overwrite: bool = False, ccd: int | None = None) -> None:
        self.running.clear()
        self.attempts.clear()
        is_chosen = {p: overwrite or ccd in (None, task["ccd"]) for p, task in self.tasks.items()}
        self.started = {p for p in self.started if not is_chosen[p] and not self.is_shared}
        self.reset([p for p in self.tasks if overwrite or (is_chosen[p] and self.status[p] in (ABORT, ERROR))])

    def pending(self, ccd: int | None = None) -> list[int]:
        return sorted(p for p, status in self.status.items() if status is None and ccd in (None, self.tasks[p]["ccd"]))

    def next(self, ccd: int | None = None) -> int | None:
        return next(iter(self.pending(ccd)), None)

    def save(self, priority: int, status: int, listed: list[int]) -> None:
        self.end(priority)
        self.reset([priority])
        this = self.tasks[priority]
        self.results[priority] = Said(status, self.decide(this, STATUS(status), set(listed) - {this["starid"]}))
        self.settle()

    def decide(self, this: dict[str, Any], status: STATUS, listed: set[int]) -> Decision:
        same = [task for task in self.tasks.values() if all(task[name] == this[name] for name in FIELD)]
        others = [task for task in same if task["starid"] in listed]
        source = this["datasource"]
        if source.startswith("tpf:") and int(source[4:]) in listed:
            primary = [t["priority"] for t in others if t["datasource"] == "tpf" and t["starid"] == int(source[4:])]
            return Decision(is_skipped=True, skipped_by=primary[0] if primary else None)
        sources = {source, f"tpf:{this['starid']}"} if source == "tpf" else {source}
        rivals = [task for task in others if task["datasource"] in sources]
        if not rivals:
            return Decision()
        by_brightness = sorted([this, *rivals], key=lambda t: (99 if t["tmag"] is None else t["tmag"], t["priority"]))
        if by_brightness[0] is not this:
            return Decision(is_skipped=True, skipped_by=by_brightness[0]["priority"])
        if status in (STATUS.ERROR, STATUS.ABORT, STATUS.SKIPPED):
            return Decision()
        return Decision(rivals=tuple(Rival(t["priority"], t["tmag"], None) for t in rivals))


stars = st.integers(1, 5)
rows_of_a_field = st.lists(
    st.fixed_dictionaries(
        {
            "starid": stars,
            "datasource": st.sampled_from(["ffi", "tpf", "tpf:1", "tpf:2"]),
            "ccd": st.sampled_from([1, 1, 1, 2]),
            "sector": st.sampled_from([1, 1, 1, 2]),
            "cadence": st.sampled_from([120, 120, 120, 20]),
            "tmag": st.sampled_from([None, -1.0, 0.0, 5.0, 5.0, 9.0]),
        }
    ),
    min_size=2,
    max_size=14,
    unique_by=lambda row: (row["starid"], row["datasource"], row["ccd"], row["sector"], row["cadence"]),
)
