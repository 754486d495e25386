"""Measure a small invented sector by simple aperture photometry on simulated stamps.

Run it with `photometry-tasks demo`, or as a script. All stars and their light are invented. To start your own pipeline,
copy this file and replace `photometry`.
"""

import functools
import math
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.ingest import add_targets
from photometry_tasks.runner import run_tasks

SECTOR = 1
STARS_PER_CCD = 20
CCD_SIZE = 60  # pixels; small, so that apertures contain neighbouring stars
STAMP_RADIUS = 5  # pixels
PSF_SIGMA = 0.9  # pixels
EXPOSURES = 96
SKY = 100.0  # electrons per second and pixel
ZERO_POINT = 20.44  # magnitude of one electron per second; TESS Instrument Handbook, section 6.1


class Star(NamedTuple):
    """A star of the invented sector; row and column are in pixels on its CCD."""

    starid: int
    camera: int
    ccd: int
    row: float
    column: float
    tmag: float

    @property
    def flux(self) -> float:
        """Flux in electrons per second."""
        return 10 ** (-0.4 * (self.tmag - ZERO_POINT))


@functools.cache
def invent_sector() -> dict[int, Star]:
    """Return the invented stars by star id, the same in every process."""
    rng = np.random.default_rng(seed=SECTOR)
    stars = {}
    for camera in range(1, 5):
        for ccd in range(1, 5):
            for number in range(STARS_PER_CCD):
                starid = 900_000_000 + 1000 * (10 * camera + ccd) + number
                row, column = rng.uniform(0, CCD_SIZE, size=2)
                stars[starid] = Star(starid, camera, ccd, row, column, tmag=round(rng.triangular(6, 13, 13), 2))
    return stars


def make_todo_file(todo_file: str | os.PathLike[str]) -> None:
    """Create a TODO-file with two tasks for each star: one on full-frame images, one on a target pixel file."""
    rows = [{**star._asdict(), "sector": SECTOR} for star in invent_sector().values()]
    add_targets(todo_file, rows, datasource="both")


def photometry(task: dict[str, Any]) -> dict[str, Any]:
    """Measure one star: simulate its stamp, choose an aperture, and sum the flux in it."""
    # A star that is not in the invented sector is simulated at row 0, column 0.
    alone = Star(task["starid"], task["camera"], task["ccd"], 0.0, 0.0, 15.0 if task["tmag"] is None else task["tmag"])
    star = invent_sector().get(task["starid"], alone)
    row1, column1 = round(star.row) - STAMP_RADIUS, round(star.column) - STAMP_RADIUS
    size = 2 * STAMP_RADIUS + 1
    neighbours = [
        other
        for other in invent_sector().values()
        if (other.camera, other.ccd) == (star.camera, star.ccd)
        and other.starid != star.starid
        and 0 <= round(other.row) - row1 < size
        and 0 <= round(other.column) - column1 < size
    ]

    rows, columns = np.mgrid[row1 : row1 + size, column1 : column1 + size]

    def light_of(source: Star) -> Any:
        distance2 = (rows - source.row) ** 2 + (columns - source.column) ** 2
        return source.flux / (2 * math.pi * PSF_SIGMA**2) * np.exp(-distance2 / (2 * PSF_SIGMA**2))

    own = light_of(star)
    image = own + SKY + sum(light_of(neighbour) for neighbour in neighbours)
    rng = np.random.default_rng([task["starid"], task["priority"]])
    stamps = rng.normal(image, np.sqrt(image / task["cadence"]), size=(EXPOSURES, size, size))

    background = np.median(stamps)
    noise = math.sqrt(SKY / task["cadence"] / EXPOSURES)
    is_near = (rows - star.row) ** 2 + (columns - star.column) ** 2 <= 3.0**2
    aperture = is_near & (np.median(stamps, axis=0) - background > 5 * noise)
    if not aperture.any():
        return {"status": STATUS.ERROR, "method_used": "aperture", "details": {"errors": ["No pixel in the aperture"]}}
    flux = (stamps[:, aperture] - background).sum(axis=1)
    mean_flux = flux.mean()
    weights = (stamps.mean(axis=0) - background)[aperture]
    expected = math.sqrt(image[aperture].sum() / task["cadence"])
    edge = np.ones_like(aperture)
    edge[1:-1, 1:-1] = False
    return {
        "status": STATUS.OK,
        "method_used": "aperture",
        "details": {
            "mean_flux": mean_flux,
            "variance": flux.var(),
            "variability": flux.std() / expected,
            "rms_hour": 1e6 * flux.std() / mean_flux * math.sqrt(task["cadence"] / 3600),
            "ptp": 1e6 * np.median(np.abs(np.diff(flux))) / mean_flux,
            "pos_centroid": (
                np.average(columns[aperture], weights=weights),
                np.average(rows[aperture], weights=weights),
            ),
            "contamination": 1 - own[aperture].sum() / (image - SKY)[aperture].sum(),
            "mask_size": aperture.sum(),
            "edge_flux": (stamps.mean(axis=0) - background)[aperture & edge].sum(),
            "stamp": (row1, row1 + size, column1, column1 + size),
            # Neighbours in the aperture: of them and this star, only the brightest needs a measurement.
            "skip_targets": [
                neighbour.starid
                for neighbour in neighbours
                if aperture[round(neighbour.row) - row1, round(neighbour.column) - column1]
            ],
        },
    }


if __name__ == "__main__":
    path = Path(tempfile.mkdtemp(prefix="photometry-tasks-demo-")) / "todo.sqlite"
    make_todo_file(path)
    with TaskManager(path) as manager:
        run_tasks(manager, photometry, jobs=2)
        print(manager.summary)
    print(f"The results are in {path}")
