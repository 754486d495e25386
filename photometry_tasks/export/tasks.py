"""Export tasks with their diagnostics: the chosen tasks, all columns, in the format of the file name."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Unpack

from photometry_tasks.export.formats import FORMATS
from photometry_tasks.models import todolist
from photometry_tasks.reading.columns import EXTRA, STORED
from photometry_tasks.reading.extra import find_extra_columns
from photometry_tasks.reading.rows import Batch, TaskReader
from photometry_tasks.rules.validation import check_path, invalid_argument
from photometry_tasks.sql.choices import Choice, build_choice
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import ListReader

#: A spreadsheet runs a text that begins with one of these (https://owasp.org/www-community/attacks/CSV_Injection).
_FORMULAS = tuple("=+-@\t\r\n＝＋－＠")


def export_tasks(
    todo: str | os.PathLike[str] | Location,
    target: str | os.PathLike[str],
    *,
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
    target : str or os.PathLike
        A file with the suffix .csv, .parquet (needs the extra `parquet`) or .ecsv (needs `ecsv`). An earlier export is
        replaced.
    for_spreadsheets : bool, optional
        For CSV only: write an apostrophe before each text that a spreadsheet would run as a formula.
    **choice
        Which tasks are written, as for `TaskManager.reset_tasks`; by default all. `status` is one or several members or
        values of `STATUS`, with None in a list for pending tasks.

    Returns
    -------
    int
        The number of written tasks. A task without a result has empty diagnostics. The pipeline's own values are in
        columns `extra_NAME`.

    Raises
    ------
    InvalidArgumentError
        If the suffix of the target is another, the target holds something else than an export, or a status is not one
        of STATUS.
    OutdatedSchemaError
        If the list has an older schema.
    UnreadableValueError
        If another program stored a value of a wrong type, which cannot be read as its column's type.
    """
    target = Path(check_path("target", target))
    form = FORMATS.get(target.suffix.lower())
    if form is None:
        raise invalid_argument("target", str(target), f"give a file name that ends with {' or '.join(FORMATS)}")
    if for_spreadsheets and form is not FORMATS[".csv"]:
        raise invalid_argument(
            "for_spreadsheets", for_spreadsheets, "give a file name that ends with .csv, or leave it out"
        )
    location = parse_location(todo)
    conditions = build_choice(choice, with_pending=True)
    number = 0
    with closing(ListReader(location)) as reader:
        with reader.begin() as opened:
            opened.check_current()
            own = find_extra_columns(opened.connection, conditions)
        columns = [*STORED, *own.values()]
        names = [column.name for column in columns]

        def read() -> Iterator[Batch]:
            nonlocal number
            number, last = 0, None
            while True:
                with reader.begin() as opened:
                    last, batch = TaskReader(opened, conditions, names, own).read_page(last)
                if last is None:
                    return
                number += len(batch[0])
                yield [list(map(_disarm, values)) for values in batch] if for_spreadsheets else batch

        location.write_output(
            target,
            lambda temporary: form.write(temporary, columns, read),
            lambda existing: _are_ours(form.read_names(existing)),
        )
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
