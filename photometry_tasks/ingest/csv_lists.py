"""Target lists as CSV files: their columns, comments and lines."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from photometry_tasks.errors import InvalidTargetError

#: Columns of the MIT target lists that `todolist` has under another name.
_OTHER_NAMES = {"ticid": "starid"}

_USED = {"starid", "sector", "datasource", "camera", "ccd", "cadence", "method", "tmag", "cbv_area"}
_REQUIRED = ("starid", "camera", "ccd", "tmag")
_SECTOR_IN_COMMENT = re.compile(r"\bsector\s+(\d+)\b", re.IGNORECASE)

#: Where a row stands, the names that its source has for our columns, and its values by our names.
Located = tuple[str, Mapping[str, str], Mapping[str, Any]]


def read_list(path: Path, sector: int | None) -> Iterator[Located]:
    """Read the rows of a list; what stands in them is not checked.

    Parameters
    ----------
    path : Path
    sector : int or None
        The sector that was given for rows without one; it must not contradict the list's comments.

    Raises
    ------
    InvalidTargetError
        If it is no such file. It names the line.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                raise InvalidTargetError(where=path, problem="it has no header line")
            names = [_OTHER_NAMES.get(name.strip().lower(), name.strip().lower()) for name in header]
            theirs = dict(zip(names, header, strict=True))
            _check_header(path, names, header)
            listed_sector = None if "sector" in names else _sector_of(path, lines.comments, sector)
            is_empty = True
            for fields in reader:
                is_empty = False
                where = f"{path}, line {lines.number}"
                if len(fields) != len(names):
                    problem = f"it has {len(fields)} fields, and the header has {len(names)}"
                    raise InvalidTargetError(where=where, problem=problem)
                row: dict[str, Any] = {
                    name: text for name, field in zip(names, fields, strict=True) if (text := field.strip())
                }
                if listed_sector is not None:
                    row["sector"] = listed_sector
                # An empty field in the column of magnitudes says that there is none.
                yield where, theirs, {"tmag": None, **row}
            if is_empty:
                raise InvalidTargetError(where=path, problem="it lists no targets")
        except csv.Error as error:
            raise InvalidTargetError(where=f"{path}, line {lines.number}", problem=error) from None
        except UnicodeDecodeError as error:
            raise InvalidTargetError(where=f"{path}, after line {lines.number}", problem=error) from None


class _Lines:
    """The lines of a list without its comments, which are kept, and the number of the current one."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = enumerate(lines, start=1)
        self.number = 0
        self.comments: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            self.number = number
            if line.startswith("#"):
                self.comments.append(line)
            elif line.strip():
                yield line


def _check_header(path: Path, names: list[str], header: list[str]) -> None:
    for name in _REQUIRED:
        if name not in names:
            raise InvalidTargetError(where=path, problem=f"it has no column {name}; it has {', '.join(header)}")
    for name in names:
        if name in _USED and names.count(name) > 1:
            raise InvalidTargetError(where=path, problem=f"it has the column {name} twice")


def _sector_of(path: Path, comments: list[str], given: int | None) -> int | None:
    """Return the sector that the comments in front of a list tell, if they do."""
    found = {int(number) for comment in comments for number in _SECTOR_IN_COMMENT.findall(comment)}
    if len(found) > 1 and given is None:
        problem = f"its comments name several sectors ({', '.join(map(str, sorted(found)))}); say which (--sector)"
        raise InvalidTargetError(where=path, problem=problem)
    if found and given is not None and given not in found:
        problem = f"its comments say sector {', '.join(map(str, sorted(found)))}, and sector {given} was asked for"
        raise InvalidTargetError(where=path, problem=problem)
    return found.pop() if len(found) == 1 else None
