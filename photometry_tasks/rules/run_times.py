"""The run times of tasks: a model that learns from results, by datasource, method and magnitude. Pure.

The logarithm of the mean run time is a smooth function of magnitude: a Gaussian process, a straight line plus an
integrated Wiener process, whose mean is a cubic smoothing spline (Rasmussen & Williams 2006, Gaussian Processes for
Machine Learning, section 6.3). So half magnitudes with few results borrow from their neighbours, and the uncertainty
grows with the distance to the nearest result: in a list that is sorted by brightness, the tasks that are left are
fainter than all that were measured.
"""

import math
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

__all__ = ["USUAL", "Cell", "RunTimes", "find_cell"]

#: The share of similar tasks that do not take longer than is expected of a task.
USUAL = 0.95

#: The latest run times that are kept of each cell.
_KEPT = 500

#: The least number of results whose mean is used, and whose scatter is used.
_FEW, _ENOUGH = 10, 50

#: Standard deviations, before any result: of the logarithm of a mean run time, of its change in a magnitude, and of the
#: ratio to the run times of other kinds of tasks.
_LEVEL, _SLOPE, _RATIO = 10.0, 0.5, 0.7

#: Standard deviations of the change of the slope in a magnitude, of which the results choose.
_BENDS = (0.02, 0.06, 0.2, 0.6)

#: Seconds. Run times outside have no logarithm, or are no times.
_SHORTEST, _LONGEST = 1e-6, 1e9

#: Magnitudes outside are no magnitudes: other programs write such numbers for an unknown magnitude.
_MAGNITUDES = range(-30, 40)


class Cell(NamedTuple):
    """Similar tasks.

    Attributes
    ----------
    source : str
        'ffi', 'tpf' or 'secondary'.
    method : str or None
        The method that the list asks for.
    half : int or None
        The half magnitude: twice the magnitude, rounded down. None without a magnitude.
    """

    source: str
    method: str | None
    half: int | None

    @property
    def place(self) -> float:
        """The magnitude in the middle of the cell; tasks without a magnitude have curves of their own."""
        return 0.0 if self.half is None else self.half / 2 + 0.25

    @property
    def kind(self) -> tuple[str, str | None, bool]:
        """Cells with equal kinds differ only in magnitude."""
        return self.source, self.method, self.half is None


def find_cell(datasource: str, method: str | None, tmag: float | None) -> Cell:
    """Return the cell of a task; a value of another type, which other programs may store, is taken for none."""
    source = datasource if datasource in ("ffi", "tpf") else "secondary"
    has_magnitude = isinstance(tmag, float | int) and _MAGNITUDES.start <= tmag < _MAGNITUDES.stop
    half = math.floor(2 * tmag) if has_magnitude and tmag is not None else None
    return Cell(source, method if isinstance(method, str) else None, half)


class RunTimes:
    """Run times of results by cell, and forecasts for other tasks."""

    def __init__(self) -> None:
        self._cells: defaultdict[Cell, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._curves: dict[tuple[str, str | None, bool], _Curve] = {}
        self._added = self._used = 0

    def __len__(self) -> int:
        """Return the number of run times that were added."""
        return self._added

    def add(self, cell: Cell, seconds: float) -> None:
        """Add the run time of a result."""
        if 0 <= seconds <= _LONGEST:
            self._cells[cell].append(max(seconds, _SHORTEST))
            self._added += 1

    def get_quantile(self, cell: Cell, share: float = USUAL) -> float | None:
        """Return the run time that this share of the tasks of a cell does not exceed, seconds; None without results."""
        curve = self._find_curve(cell)
        return None if curve is None else curve.get_quantile(cell.place, share)

    def get_variance(self, tasks: Mapping[Cell, float]) -> float:
        """Return the variance of the ratio of a run time to the mean of its cell, the mean over tasks; 0 if unknown."""
        known = [(curve.variance, number) for cell, number in tasks.items() if (curve := self._find_curve(cell))]
        return math.fsum(variance * number for variance, number in known) / (math.fsum(n for _, n in known) or 1.0)

    def draw(self, groups: Sequence[Mapping[Cell, float]], times: int, chance: random.Random) -> list[list[float]]:
        """Return possible run times of groups of tasks; an empty list without results.

        Parameters
        ----------
        groups : sequence of mapping
            The number of tasks of each cell, by group.
        times : int
            Number of draws. In each, all groups share the unknown means of the cells, while their tasks scatter
            independently.
        chance : random.Random

        Returns
        -------
        list of list of float
            The sum of the run times of each group, seconds, for each draw.
        """
        if not self._cells:
            return []
        cells: defaultdict[tuple[str, str | None, bool], list[Cell]] = defaultdict(list)
        for cell in dict.fromkeys(cell for group in groups for cell in group):
            cells[cell.kind].append(cell)
        curves = [(curve, alike) for alike in cells.values() if (curve := self._find_curve(alike[0]))]
        found = []
        for _ in range(times):
            tasks: dict[Cell, tuple[_Curve, float]] = {}
            for curve, alike in curves:
                means = curve.draw([cell.place for cell in alike], chance)
                tasks.update((cell, (curve, mean)) for cell, mean in zip(alike, means, strict=True))
            found.append([_draw_sum(tasks, group, chance) for group in groups])
        return found

    def _find_curve(self, cell: Cell) -> "_Curve | None":
        """Return the curve of the cell's kind; if it has few results, that of its datasource, or of all."""
        if self._added > 1.05 * self._used:
            self._curves.clear()
            self._used = self._added
        if not self._cells:
            return None
        if cell.kind not in self._curves:
            own = [found for found in self._cells if found.kind == cell.kind]
            ratio = 0.0
            if sum(len(self._cells[found]) for found in own) < _FEW:
                own = [found for found in self._cells if found.source == cell.source] or list(self._cells)
                ratio = _RATIO
            self._curves[cell.kind] = _Curve([(found.place, self._cells[found]) for found in own], ratio)
        return self._curves[cell.kind]


def _draw_sum(
    tasks: Mapping[Cell, "tuple[_Curve, float]"], group: Mapping[Cell, float], chance: random.Random
) -> float:
    """Return a possible sum of the run times of a group of tasks, whose cells have known means."""
    found = 0.0
    for cell, number in group.items():
        curve, mean = tasks[cell]
        if number:
            # A gamma distribution is positive and has a long tail, as sums of run times.
            found += chance.gammavariate(number / curve.variance, mean * curve.variance)
    return found


class _Curve:
    """The mean run time of a kind of tasks as a function of magnitude, and the scatter about it.

    Parameters
    ----------
    cells : sequence
        A place (magnitude) and run times (seconds) of each cell; at least one run time.
    ratio : float
        Standard deviation of the logarithm of the ratio between the tasks in question and these.
    """

    def __init__(self, cells: Iterable[tuple[float, Iterable[float]]], ratio: float) -> None:
        bins = _merge(cells)
        self._ratio = ratio
        self._places = [place for place, _ in bins]
        means = [math.fsum(times) / len(times) for _, times in bins]
        self._ratios = [[time / mean for time in times] for mean, (_, times) in zip(means, bins, strict=True)]
        number = sum(map(len, self._ratios))
        scatter = math.fsum((ratio - 1) ** 2 for ratios in self._ratios for ratio in ratios)
        #: Of the ratio of a run time to the mean. A single result shows no scatter; half is as usual as any.
        self.variance = (scatter + 0.5) / (number - len(bins) + 1)
        noise = [self.variance / len(ratios) for ratios in self._ratios]
        # The logarithm of a mean of few results is less than that of the expectation.
        values = [math.log(mean) + each / 2 for mean, each in zip(means, noise, strict=True)]
        self._fits = [_Fit(self._places, values, noise, bend) for bend in _BENDS]
        most = max(fit.evidence for fit in self._fits)
        self._weights = [math.exp(fit.evidence - most) for fit in self._fits]

    def get_quantile(self, place: float, share: float) -> float:
        """Return the run time that this share of the tasks at a place does not exceed, seconds."""
        ratios: list[float] = []
        for near in sorted(range(len(self._places)), key=lambda near: abs(self._places[near] - place)):
            if len(ratios) >= _ENOUGH:
                break
            ratios += self._ratios[near]
        ((expected,), _) = self._fits[self._weights.index(max(self._weights))].predict((place,))
        return _exp(expected) * sorted(ratios)[min(len(ratios) - 1, int(share * len(ratios)))]

    def draw(self, places: Iterable[float], chance: random.Random) -> list[float]:
        """Return a possible mean run time at each place, seconds."""
        (fit,) = chance.choices(self._fits, self._weights)
        ratio = chance.gauss(0.0, self._ratio)
        return [_exp(value + ratio) for value in fit.draw(tuple(places), chance)]


class _Fit:
    """A Gaussian process that has seen values at places.

    Parameters
    ----------
    places, values, noise : sequence of float
        Magnitudes, in ascending order; the values there, and the variance of each value.
    bend : float
        Standard deviation of the change of the slope in a magnitude.
    """

    def __init__(self, places: Sequence[float], values: Sequence[float], noise: Sequence[float], bend: float) -> None:
        self._places, self._bend = places, bend
        self._level = math.fsum(values) / len(values)
        covariances = _tabulate(places, self._covariance)
        for line, variance in zip(covariances, noise, strict=True):
            line[-1] += variance
        self._root = _factorise(covariances)
        self._solved = _solve(self._root, [value - self._level for value in values])
        #: The logarithm of the probability density of the values, but for a constant.
        self.evidence = -_dot(self._solved, self._solved) / 2 - math.fsum(math.log(line[-1]) for line in self._root)
        self._predicted: dict[tuple[float, ...], tuple[list[float], list[list[float]]]] = {}

    def _covariance(self, one: float, other: float) -> float:
        one, other = one - self._places[0], other - self._places[0]
        short, long = sorted((abs(one), abs(other)))
        # On the two sides of the brightest results, the slope changes independently.
        wiener = short**2 * (long / 2 - short / 6) if one * other > 0 else 0.0
        return _LEVEL**2 + _SLOPE**2 * one * other + self._bend**2 * wiener

    def predict(self, places: tuple[float, ...]) -> tuple[list[float], list[list[float]]]:
        """Return the expected values at places, and the root of their covariance."""
        if places not in self._predicted:
            solved = {
                place: _solve(self._root, [self._covariance(place, seen) for seen in self._places]) for place in places
            }
            left = _tabulate(places, lambda one, other: self._covariance(one, other) - _dot(solved[one], solved[other]))
            means = [self._level + _dot(solved[place], self._solved) for place in places]
            self._predicted[places] = means, _factorise(left)
        return self._predicted[places]

    def draw(self, places: tuple[float, ...], chance: random.Random) -> list[float]:
        """Return possible values at places."""
        means, root = self.predict(places)
        chances = [chance.gauss(0.0, 1.0) for _ in places]
        return [mean + _dot(line, chances) for mean, line in zip(means, root, strict=True)]


def _merge(cells: Iterable[tuple[float, Iterable[float]]]) -> list[tuple[float, list[float]]]:
    """Return run times by mean place, in ascending order: neighbours are merged until each bin has ten."""
    found: list[tuple[list[float], list[float]]] = []
    for place, times in sorted((place, list(times)) for place, times in cells):
        if not found or len(found[-1][1]) >= _FEW:
            found.append(([], []))
        found[-1][0].extend([place] * len(times))
        found[-1][1].extend(times)
    if len(found) > 1 and len(found[-1][1]) < _FEW:
        places, all_times = found.pop()
        found[-1][0].extend(places)
        found[-1][1].extend(all_times)
    return [(math.fsum(places) / len(places), times) for places, times in found]


def _exp(value: float) -> float:
    return math.exp(min(value, math.log(_LONGEST)))


def _dot(one: Iterable[float], other: Iterable[float]) -> float:
    """Return the sum of products; the longer vector is cut."""
    return sum([left * right for left, right in zip(one, other, strict=False)])


def _tabulate(places: Sequence[float], covariance: Callable[[float, float], float]) -> list[list[float]]:
    """Return the lower triangle of a symmetric matrix."""
    return [[covariance(one, other) for other in places[: line + 1]] for line, one in enumerate(places)]


def _factorise(matrix: list[list[float]]) -> list[list[float]]:
    """Return the Cholesky factor of a symmetric matrix, both as lower triangles."""
    root: list[list[float]] = []
    for line in matrix:
        found: list[float] = []
        for other, value in zip(root, line, strict=False):
            found.append((value - _dot(found, other)) / other[-1])
        # Rounding may turn a variance of nearly 0 into a negative number.
        found.append(math.sqrt(max(line[-1] - _dot(found, found), 1e-12)))
        root.append(found)
    return root


def _solve(root: list[list[float]], values: Iterable[float]) -> list[float]:
    """Return the vector whose product with a lower triangle is `values`."""
    found: list[float] = []
    for line, value in zip(root, values, strict=True):
        found.append((value - _dot(found, line)) / line[-1])
    return found
