"""Read target lists: the columns, comments and lines of CSV files."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from photometry_tasks.errors import InvalidTargetError, TargetListNotFoundError
from photometry_tasks.ingest.rows import iter_parts
from photometry_tasks.ingest.targets import USED, Chunk
from photometry_tasks.rules.validation import show
from photometry_tasks.text import count_of

#: Columns of MIT's target lists that have another name in `todolist`.
_OTHER_NAMES = {"ticid": "starid"}

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


def read_list(path: Path, sector: int | None) -> Iterator[Chunk]:
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
        records = _read_records(path, lines)
        _, header = next(records, (0, None))
        if header is None:
            raise InvalidTargetError(where=path, problem="the header line is missing")
        names = [_OTHER_NAMES.get(name.strip().lower(), name.strip().lower()) for name in header]
        theirs = dict(zip(names, header, strict=True))
        _check_header(path, names, header)
        listed_sector = None if "sector" in names else _sector_of(path, lines.comments, sector)
        is_empty = True
        for some in iter_parts(records):
            is_empty = False
            numbers, rows = zip(*some, strict=True)
            columns = {
                # An empty field in the column of magnitudes stands for a star without a magnitude.
                name: [field.strip() or None for field in fields]
                for name, fields in zip(names, zip(*rows, strict=True), strict=True)
                if name in USED
            }
            if listed_sector is not None:
                columns["sector"] = [listed_sector] * len(rows)
            yield Chunk(columns, len(rows), partial(_locate, path, numbers), theirs)
        if is_empty:
            raise InvalidTargetError(where=path, problem="the list has no targets")
        if "sector" not in names:
            _sector_of(path, lines.comments, sector)  # comments between the rows may contradict the first


def _locate(path: Path, numbers: Sequence[int], place: int) -> str:
    return f"{path}, line {numbers[place]}"


def _read_records(path: Path, lines: "_Lines") -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line and the fields of each record, as many fields as the first has."""
    number = 0
    try:
        for fields in csv.reader(lines, strict=True):
            lines.is_in_record = False
            number = number or len(fields)
            if len(fields) != number:
                problem = f"the line has {count_of(len(fields), 'field')}, but the header has {number}"
                raise InvalidTargetError(where=f"{path}, line {lines.number}", problem=problem)
            yield lines.number, fields
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
        if name in USED and names.count(name) > 1:
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
