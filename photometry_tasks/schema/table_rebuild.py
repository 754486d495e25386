"""Change the columns of a table in a SQLite file, and keep the additions of other programs as written.

SQLite can change few properties of a table in place. For other changes, a new table receives the rows, and then the
indexes and triggers, of the old table (https://sqlite.org/lang_altertable.html, section 7). Reflecting the old table
would lose unnamed checks, collations and generated columns. Therefore the SQL of the old table is parsed, and the SQL
of the new table is built from its parts.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Connection, Table
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.schema import CreateTable

#: The name of the old table while its rows are copied.
_OLD = "photometry_tasks_old"

#: SQLite's result codes for a wrong statement and for a row that violates a constraint; not for a full disk.
_CANNOT_BE = {1, 19}


def rebuild_table(
    connection: Connection, table: Table, values: Mapping[str, str], unwanted: Collection[str], indexes: Collection[str]
) -> None:
    """Rebuild a table with the columns of `table` and the columns that other programs added.

    The caller's transaction must have foreign keys off: dropping the old table would delete the rows that refer to it.

    Parameters
    ----------
    values : mapping
        The SQL expression for each column of `table`, from columns of the old table.
    unwanted : collection of str
        Columns of the old table to drop.
    indexes : collection of str
        Names of the indexes that the caller creates again. All other indexes are kept.

    Raises
    ------
    ValueError
        If an object of another program cannot be kept; the message names it.
    """
    execute = connection.exec_driver_sql
    (sql,) = execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND lower(name) = ?", (table.name,)).one()
    # Values of generated columns are not copied.
    found = execute("SELECT lower(name) FROM pragma_table_xinfo(?) WHERE NOT hidden", (table.name,)).scalars()
    stored = [name for name in found if name not in unwanted]
    copied = {**values, **{name: quote(name) for name in stored if name not in values}}
    attached = execute(
        "SELECT type, name, sql FROM sqlite_master WHERE lower(tbl_name) = ? AND type IN ('index', 'trigger') "
        "AND sql IS NOT NULL ORDER BY type, rowid",
        (table.name,),
    ).all()
    # Without the pragma, SQLite would rename the table in all views, triggers and foreign keys too.
    execute("PRAGMA legacy_alter_table=ON")
    execute(f"ALTER TABLE {table.name} RENAME TO {_OLD}")
    execute("PRAGMA legacy_alter_table=OFF")
    with _named(f"an addition to the table {table.name}"):
        execute(build_table_sql(sql, str(CreateTable(table).compile(connection)), unwanted))
        execute(
            f"INSERT INTO {table.name} ({', '.join(map(quote, copied))}) "  # noqa: S608 - names are quoted
            f"SELECT {', '.join(copied.values())} FROM {_OLD} AS {table.name}"
        )
    execute(f"DROP TABLE {_OLD}")
    for kind, name, attached_sql in attached:
        if kind == "trigger" or name.lower() not in indexes:
            with _named(f"{kind} {name}"):
                execute(attached_sql)


@contextmanager
def _named(thing: str) -> Iterator[None]:
    """Raise a ValueError that names an object if SQLite cannot create it again."""
    try:
        yield
    except (IntegrityError, OperationalError) as error:
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF not in _CANNOT_BE:
            raise
        raise ValueError(f"{thing} cannot be kept: {error.orig}") from error


def quote(name: str) -> str:
    """Return a name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def build_table_sql(old: str, new: str, unwanted: Collection[str]) -> str:
    """Return the SQL of a new table with the additions of other programs to the old table.

    Parameters
    ----------
    old, new : str
        CREATE TABLE statements.
    unwanted : collection of str
        Columns of the old table to drop.

    Raises
    ------
    ValueError
        If a part of the old table cannot be kept; the message names it.
    """
    if not old.startswith("CREATE TABLE"):
        raise ValueError("a virtual table cannot be changed")
    old_parts, options = _split(old)
    new_parts, _ = _split(new)
    if options:
        raise ValueError(f"the table's {options} cannot be kept")
    ours = {part.name for part in new_parts if part.name is not None}
    written = {part.name: part for part in old_parts}
    columns = [
        part.text + "".join(_extras(written[part.name]) if part.name in written else ())
        for part in new_parts
        if part.name is not None
    ]
    columns += [part.text for part in old_parts if part.name is not None and part.name not in {*ours, *unwanted}]
    rules = [part.text for part in new_parts if part.name is None]
    rules += [part.text for part in old_parts if part.name is None and not _is_replaced(part, ours)]
    head = new[: new.index("(")].strip()
    # One line for each part, since a part may end with a comment.
    return f"{head} (\n\t" + "\n\t, ".join(columns + rules) + "\n)"


# --- parsing SQL -----------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<blank> \s+ | --[^\n]* | /\*.*?(?:\*/|\Z) )
      | (?P<quoted> '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] )
      | (?P<word> (?:[\w$]|[^\x00-\x7f])+ )
      | (?P<other> . )""",
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    """A word or sign of SQL, with its position."""

    text: str
    start: int
    end: int
    depth: int

    @property
    def keyword(self) -> str:
        return self.text.upper()

    @property
    def name(self) -> str:
        """The unquoted name in lower case; SQLite ignores case."""
        text, sign = self.text, self.text[0]
        if sign in "\"'`":
            text = text[1:-1].replace(sign * 2, sign)
        elif sign == "[":
            text = text[1:-1]
        return text.lower()


class _Part(NamedTuple):
    """A column or, without a name, a constraint of a table, as written."""

    name: str | None
    text: str
    tokens: list[_Token]
    sql: str  # the SQL of the whole table


def _read_tokens(sql: str) -> Iterator[_Token]:
    depth = 0
    for match in _TOKEN.finditer(sql):
        if match.lastgroup == "blank":
            continue
        depth -= match[0] == ")"
        yield _Token(match[0], *match.span(), depth)
        depth += match[0] == "("


def _split(sql: str) -> tuple[list[_Part], str]:
    """Return the columns and constraints of a CREATE TABLE statement, and the options after them."""
    tokens = list(_read_tokens(sql))
    first = next(number for number, token in enumerate(tokens) if token.text == "(")
    last = next(number for number, token in enumerate(tokens) if token.text == ")" and token.depth == 0)
    parts, begin, start = [], first + 1, tokens[first].end
    for number in range(first + 1, last + 1):
        token = tokens[number]
        if number == last or (token.text == "," and token.depth == 1):
            parts.append(_build_part(sql, sql[start : token.start].strip(), tokens[begin:number]))
            begin, start = number + 1, token.end
    return parts, " ".join(token.text for token in tokens[last + 1 :])


def _build_part(sql: str, text: str, tokens: list[_Token]) -> _Part:
    is_rule = tokens[0].keyword in ("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN")
    return _Part(None if is_rule else tokens[0].name, text, tokens, sql)


def _split_clauses(tokens: list[_Token]) -> list[tuple[str, list[_Token]]]:
    """Return the clauses after a column's name and type: the keyword and the tokens of each clause."""
    clauses: list[tuple[str, list[_Token]]] = []
    is_named = False
    for before, token, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
        previous = before.keyword if before else ""
        starts = {
            "NOT": after is not None and after.keyword == "NULL",
            "NULL": previous not in ("NOT", "DEFAULT", "SET"),
            "DEFAULT": previous != "SET",
            "AS": previous != "ALWAYS",
        }
        keywords = ("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "COLLATE", "REFERENCES", "GENERATED", *starts)
        if token.depth == 1 and token.keyword in keywords and starts.get(token.keyword, True):
            if is_named:
                clauses[-1] = (token.keyword, [*clauses[-1][1], token])
            else:
                clauses.append((token.keyword, [token]))
            is_named = token.keyword == "CONSTRAINT"
        elif clauses:
            clauses[-1][1].append(token)
    return clauses


def _extras(old: _Part) -> Iterator[str]:
    """Yield the clauses of a column that only the old table has."""
    for keyword, tokens in _split_clauses(old.tokens[1:]):
        text = old.sql[tokens[0].start : tokens[-1].end]
        if keyword in ("CHECK", "UNIQUE", "COLLATE") or (keyword == "REFERENCES" and not _refers_to_tasks(tokens)):
            yield f" {text}"
        elif keyword in ("GENERATED", "AS"):
            raise ValueError(f"the generated column {old.name} cannot be kept")


def _refers_to_tasks(tokens: list[_Token]) -> bool:
    names = [token.keyword for token in tokens]
    return tokens[names.index("REFERENCES") + 1].name == "todolist"


def _is_replaced(rule: _Part, ours: set[str]) -> bool:
    """Whether the new table replaces a constraint: the primary key, or a foreign key to todolist."""
    keywords = [token.keyword for token in rule.tokens]
    kind = keywords[2] if keywords[0] == "CONSTRAINT" else keywords[0]
    if kind == "FOREIGN":
        begin, end = keywords.index("("), keywords.index(")")
        columns = {token.name for token in rule.tokens[begin + 1 : end] if token.text != ","}
        return columns <= ours and _refers_to_tasks(rule.tokens)
    return kind == "PRIMARY"
