"""Export tasks with their diagnostics: the chosen tasks and all columns, in any of the formats."""

import gzip
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Literal, Unpack, cast

from photometry_tasks.errors import ValuesChangedError
from photometry_tasks.export.formats import FORMATS, SUFFIXES, find_format
from photometry_tasks.models import todolist
from photometry_tasks.reading.columns import EXTRA, STORED
from photometry_tasks.reading.extra import fit_values
from photometry_tasks.reading.rows import Batch, TaskPages, find_own_columns
from photometry_tasks.rules.validation import check_path, invalid_argument
from photometry_tasks.sql.choices import Choice, build_choice
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import ListReader

#: A spreadsheet runs a text that begins with one of these (https://owasp.org/www-community/attacks/CSV_Injection).
_FORMULAS = tuple("=+-@\t\r\n＝＋－＠")


def export_tasks(
    todo: str | os.PathLike[str] | Location,
    target: str | os.PathLike[str] | BinaryIO,
    *,
    file_format: Literal["csv", "ecsv", "vot", "fits", "parquet"] | None = None,
    force: bool = False,
    for_spreadsheets: bool = False,
    **choice: Unpack[Choice],
) -> int:
    """Write tasks with their diagnostics to a file, atomically and in order of priority.

    The rows are read in pages of some thousand: a task that changes meanwhile is written as its page has it.

    Parameters
    ----------
    todo : str or os.PathLike
        The TODO-file, or the URL of a list on a server. It may be in use. Results that a manager in memory has logged
        are written too; the file is then copied into memory.
    target : str, os.PathLike or binary file
        The path of a file. Its suffix gives the format: .csv, .ecsv or .vot (VOTable), each also with .gz, .fits or
        .parquet. Parquet needs the extra `parquet`; ECSV, VOTable and FITS need the extra `astropy`. An earlier export
        is replaced. Or an open file, such as ``sys.stdout.buffer``.
    file_format : {'csv', 'ecsv', 'vot', 'fits', 'parquet'}, optional
        The format of an open file, or of a file with another suffix; by default CSV for an open file.
    force : bool, optional
        Replace any file, not only an export.
    for_spreadsheets : bool, optional
        For CSV only: write an apostrophe before each text that a spreadsheet would run as a formula.
    **choice
        Which tasks are written, as for `TaskManager.reset_tasks`; by default all. `status` is one or several members or
        values of `STATUS`, with None in a list for pending tasks.

    Returns
    -------
    int
        The number of written tasks. A task without a result has empty diagnostics. The pipeline's own values are in
        columns `extra_NAME`. In VOTable and FITS a missing text is an empty text. In FITS a truth value is 0 or 1, and
        a character that is not printable ASCII is written as in a literal of Python.

    Raises
    ------
    InvalidArgumentError
        If the suffix of the target is another, the target holds something else than an export, or a status is not one
        of STATUS.
    OutdatedSchemaError
        If the list has an older schema.
    UnreadableValueError
        If another program stored a value of a wrong type, which cannot be read as its column's type.
    ValuesChangedError
        If a run meanwhile saved one of the pipeline's own values with another type than those before.
    """
    output = None if hasattr(target, "write") else Path(check_path("target", target))
    found = find_format(f"output.{file_format or 'csv'}" if file_format or output is None else output.name)
    if found is None and file_format:
        raise invalid_argument("file_format", file_format, f"give one of {', '.join(FORMATS)}, without the dot")
    if found is None:
        raise invalid_argument("target", str(output), f"give a file name that ends with {SUFFIXES}")
    form, is_compressed = found
    if for_spreadsheets and form is not FORMATS[".csv"]:
        raise invalid_argument(
            "for_spreadsheets", for_spreadsheets, "give a file name that ends with .csv or .csv.gz, or leave it out"
        )
    location = parse_location(todo)
    conditions = build_choice(choice, with_pending=True)
    number = 0
    with closing(ListReader(location)) as reader:
        with reader.begin() as opened:
            opened.check_current()
        columns = [*STORED, *find_own_columns(reader.begin, conditions)]

        def read() -> Iterator[Batch]:
            nonlocal number
            number = 0
            for batch in TaskPages(reader.begin, conditions, columns):
                number += len(batch[0])
                try:
                    for place, column in enumerate(columns[len(STORED) :], start=len(STORED)):
                        batch[place] = fit_values(column, batch[place])
                except ValueError as error:
                    raise ValuesChangedError(path=location.name, found=error) from None
                yield [list(map(_disarm, values)) for values in batch] if for_spreadsheets else batch

        def write(file: BinaryIO) -> None:
            """Write through a temporary file what is compressed or printed."""
            with tempfile.TemporaryFile() as spool:
                form.write(spool, columns, read)
                spool.seek(0)
                with gzip.GzipFile("", "wb", fileobj=file) if is_compressed else nullcontext(file) as content:
                    shutil.copyfileobj(spool, content)

        def write_to(path: Path) -> None:
            with path.open("wb") as file:
                if is_compressed:
                    write(file)
                else:
                    form.write(file, columns, read)

        def is_ours(file: BinaryIO) -> bool:
            try:
                return _are_ours(form.read_names(cast(BinaryIO, gzip.open(file)) if is_compressed else file))
            except (OSError, EOFError, zlib.error):  # it is not compressed
                return False

        if output is None:
            write(cast(BinaryIO, target))
        else:
            location.write_output(output, write_to, is_ours, force=force)
    return number


def _disarm(value: Any) -> Any:
    """Return a value that no spreadsheet runs as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _are_ours(names: Sequence[str]) -> bool:
    """Whether a table with these columns is an export of this or an earlier release, without a column of its user."""
    ours = [column.name for column in STORED]
    first = len(todolist.columns) + 1
    others = set(names) - set(ours)
    return names[:first] == ours[:first] and all(name.startswith(EXTRA) for name in others)
