"""Read target lists: the columns, comments and lines of CSV files."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from photometry_tasks.errors import InvalidTargetError, TargetListNotFoundError
from photometry_tasks.rules.validation import show
from photometry_tasks.text import count_of

#: Columns of MIT's target lists that have another name in `todolist`.
_OTHER_NAMES = {"ticid": "starid"}

_USED = {"starid", "sector", "datasource", "camera", "ccd", "cadence", "method", "tmag", "cbv_area"}
_REQUIRED = ("starid", "camera", "ccd", "tmag")

#: The comments that give the sector of a list: "Full target list for orbit 9, sector 1", as in the lists of the TESS
#: Science Office, "Targets of sector 1", and "sector: 1".
_SECTOR_COMMENT = re.compile(
    r"[#\s]*(?:(?:full )?(?:target list|targets) (?:for|of) (?:orbits? [0-9]+(?:(?:,| and|-) ?[0-9]+)*, )?)?"
    r"sector[\s:=]+([0-9]{1,4})[.\s]*",
    re.IGNORECASE,
)
#: Any other comment about a sector is prose.
_ABOUT_SECTOR = re.compile(r"\bsectors?\b.*[0-9]", re.IGNORECASE)

#: The place of a row for errors, its source's names of our columns, and its values by our names.
Located = tuple[str, Mapping[str, str], Mapping[str, Any]]


def read_list(path: Path, sector: int | None) -> Iterator[Located]:
    """Yield the rows of a list, without checking their values.

    Parameters
    ----------
    path : Path
    sector : int or None
        The sector for rows without a sector. It must not contradict the list's comments.

    Raises
    ------
    TargetListNotFoundError
        If the file does not exist.
    InvalidTargetError
        If the file is not a target list. The error names the line.
    """
    with _open(path) as file:
        if b"\0" in file.peek():
            problem = "it is a binary file, or text in UTF-16; give a CSV file in UTF-8"
            raise InvalidTargetError(where=path, problem=problem)
        lines = _Lines(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
        reader = csv.reader(lines, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                raise InvalidTargetError(where=path, problem="the header line is missing")
            names = [_OTHER_NAMES.get(name.strip().lower(), name.strip().lower()) for name in header]
            theirs = dict(zip(names, header, strict=True))
            _check_header(path, names, header)
            listed_sector = None if "sector" in names else _sector_of(path, lines.comments, sector)
            is_empty = True
            lines.is_in_record = False
            for fields in reader:
                lines.is_in_record = False
                is_empty = False
                where = f"{path}, line {lines.number}"
                if len(fields) != len(names):
                    problem = f"the line has {count_of(len(fields), 'field')}, but the header has {len(names)}"
                    raise InvalidTargetError(where=where, problem=problem)
                row: dict[str, Any] = {
                    name: text for name, field in zip(names, fields, strict=True) if (text := field.strip())
                }
                if listed_sector is not None:
                    row["sector"] = listed_sector
                # An empty field in the column of magnitudes stands for a star without a magnitude.
                yield where, theirs, {"tmag": None, **row}
            if is_empty:
                raise InvalidTargetError(where=path, problem="the list has no targets")
            if "sector" not in names:
                _sector_of(path, lines.comments, sector)  # comments between the rows may contradict the first
        except csv.Error as error:
            raise InvalidTargetError(where=f"{path}, line {lines.number}", problem=error) from None
        except UnicodeDecodeError as error:
            where = f"{path}, after line {lines.number}"
            problem = f"the text is not UTF-8 ({error}), but perhaps Latin-1; save it as UTF-8"
            raise InvalidTargetError(where=where, problem=problem) from None


def _open(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise TargetListNotFoundError(path=str(path)) from None
    except (OSError, ValueError) as error:  # ValueError: the path has a NUL
        problem = f"it cannot be read ({getattr(error, 'strerror', error)}); give a readable CSV file"
        raise InvalidTargetError(where=path, problem=problem) from error


class _Lines:
    """The lines of a list without its comments, the comments with their numbers, and the number of the current line.

    Within a record, which a quoted field may continue over lines, no line is a comment; its reader ends the record.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = enumerate(lines, start=1)
        self.number = 0
        self.is_in_record = False
        self.comments: list[tuple[int, str]] = []

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            self.number = number
            if not self.is_in_record and line.startswith("#"):
                self.comments.append((number, line.strip()))
            elif self.is_in_record or line.strip():
                self.is_in_record = True
                yield line


def _check_header(path: Path, names: list[str], header: list[str]) -> None:
    for name in _REQUIRED:
        if name not in names:
            raise InvalidTargetError(where=path, problem=f"column {name} is missing; the list has {', '.join(header)}")
    for name in names:
        if name in _USED and names.count(name) > 1:
            raise InvalidTargetError(where=path, problem=f"column {name} occurs twice")


def _sector_of(path: Path, comments: list[tuple[int, str]], given: int | None) -> int | None:
    """Return the sector that the comments name, or None."""
    found = {int(match[1]) for _, comment in comments if (match := _SECTOR_COMMENT.fullmatch(comment))}
    prose = [(number, comment) for number, comment in comments if _ABOUT_SECTOR.search(comment)]
    if not found and prose and given is None:
        number, comment = prose[0]
        problem = f"the sector in {show(comment)} is unclear; choose a sector with --sector, or `sector=`"
        raise InvalidTargetError(where=f"{path}, line {number}", problem=problem)
    named = ", ".join(map(str, sorted(found)))
    if len(found) > 1 and given is None:
        problem = f"the comments name several sectors ({named}); choose a sector with --sector, or `sector=`"
        raise InvalidTargetError(where=path, problem=problem)
    if found and given is not None and given not in found:
        problem = f"the comments name sector {named}, but sector {given} was given; correct the list or the argument"
        raise InvalidTargetError(where=path, problem=problem)
    return found.pop() if len(found) == 1 else None
