"""The SQL of a rebuilt table: additions of other programs are kept as written."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photometry_tasks.schema.table_rebuild import build_table_sql, quote

NEW = "CREATE TABLE t (\n\ta INTEGER NOT NULL, \n\tb TEXT, \n\tCONSTRAINT t_pkey PRIMARY KEY (a)\n)"


def rebuilt(*added: str, of_b: str = "", rules: tuple[str, ...] = ()) -> str:
    """Return the SQL of the new table with additions: to our columns, other columns, and constraints."""
    columns = ["a INTEGER NOT NULL", f"b TEXT{of_b}", *added]
    return "CREATE TABLE t (\n\t" + "\n\t, ".join([*columns, "CONSTRAINT t_pkey PRIMARY KEY (a)", *rules]) + "\n)"


@pytest.mark.parametrize(
    ("definition", "kept"),
    [
        ("b VARCHAR(10, 2) CHECK (b > '')", " CHECK (b > '')"),
        ("b 'CHECK' CHECK (b <> ')')", " CHECK (b <> ')')"),
        ("b DEFAULT 'CHECK (b)'", ""),
        ("b DEFAULT (coalesce('a,', ')')) UNIQUE", " UNIQUE"),
        ("b DEFAULT NULL NULL COLLATE NOCASE", " COLLATE NOCASE"),
        ("b check (b IS NULL OR b = 'x') Check (b <> 'it''s')", " check (b IS NULL OR b = 'x') Check (b <> 'it''s')"),
        ("b CONSTRAINT x CHECK (b) CONSTRAINT y UNIQUE", " CONSTRAINT x CHECK (b) CONSTRAINT y UNIQUE"),
        ("b UNIQUE ON CONFLICT REPLACE NOT NULL ON CONFLICT FAIL", " UNIQUE ON CONFLICT REPLACE"),
        (
            "b REFERENCES m ON DELETE SET NULL ON UPDATE SET DEFAULT",
            " REFERENCES m ON DELETE SET NULL ON UPDATE SET DEFAULT",
        ),
        ("b REFERENCES m (n) NOT DEFERRABLE INITIALLY DEFERRED", " REFERENCES m (n) NOT DEFERRABLE INITIALLY DEFERRED"),
        ('b REFERENCES "TodoList" (priority) ON DELETE CASCADE', ""),
        ("b CHECK (b -- (\n)", " CHECK (b -- (\n)"),
        ("b CHECK (/* ) , */ b)", " CHECK (/* ) , */ b)"),
        ("[b] UNIQUE", " UNIQUE"),
        ("`B` UNIQUE", " UNIQUE"),
    ],
)
def test_a_column_of_ours(definition: str, kept: str) -> None:
    """Checks, collation, uniqueness and references to other tables are kept for our columns, other clauses are not."""
    assert build_table_sql(f"CREATE TABLE t (a INT, {definition})", NEW, ()) == rebuilt(of_b=kept)


@pytest.mark.parametrize("name", ['"check"', "[unique]", "`primary`", '"a b"', '"constraint"', "checked", "größe"])
def test_a_name_like_a_rule(name: str) -> None:
    """A column may have a name that looks like the beginning of a constraint."""
    assert build_table_sql(f"CREATE TABLE t ({name} INT, b TEXT, a INT)", NEW, ()) == rebuilt(f"{name} INT")


@pytest.mark.parametrize(
    ("rule", "is_kept"),
    [
        ("PRIMARY KEY (a) ON CONFLICT REPLACE", False),
        ("CONSTRAINT key PRIMARY KEY (a)", False),
        ('FOREIGN KEY ("A") REFERENCES [TodoList] (priority)', False),
        ("CONSTRAINT f FOREIGN KEY (a, b) REFERENCES todolist (priority, starid)", False),
        ("FOREIGN KEY (a, c) REFERENCES todolist (priority, starid)", True),
        ("FOREIGN KEY (a) REFERENCES other (priority)", True),
        ("CONSTRAINT u UNIQUE (a, b)", True),
        ("check (a <> ',)')", True),
    ],
)
def test_rules(rule: str, is_kept: bool) -> None:
    """A constraint is kept unless it is the key or a foreign key from our columns to tasks."""
    sql = build_table_sql(f"CREATE TABLE t (a INT, b TEXT, c INT, {rule})", NEW, ())
    assert sql == rebuilt("c INT", rules=(rule,) if is_kept else ())


def test_columns_that_go() -> None:
    """An unwanted column is dropped, with any case and quotes of its name."""
    old = 'CREATE TABLE t (a INT, "Old" INT CHECK ("Old" > 0), b TEXT, older INT)'
    assert build_table_sql(old, NEW, {"old"}) == rebuilt("older INT")


signs = st.text(st.sampled_from("\"'`[](),-/* \nxé"), min_size=1) | st.text(min_size=1)
names = signs.filter(lambda name: "\0" not in name and name.lower() not in ("a", "b"))


@settings(max_examples=25)
@given(columns=st.lists(st.tuples(names, signs), max_size=4, unique_by=lambda column: column[0].lower()))
def test_columns_of_others_stay_as_they_were_written(columns: list[tuple[str, str]]) -> None:
    """Columns of other programs stay, with any name and default, in their order, also after another rebuild."""
    texts = [f"{quote(name)} TEXT DEFAULT '{default.replace(chr(39), chr(39) * 2)}'" for name, default in columns]
    assert quote('a"b') == '"a""b"'
    sql = build_table_sql(f"CREATE TABLE t ({', '.join(['a INT', *texts, 'b'])})", NEW, ())
    assert sql == rebuilt(*texts)
    assert build_table_sql(sql, NEW, ()) == sql


@pytest.mark.parametrize(
    ("old", "problem"),
    [
        ("CREATE TABLE t (a INT, b TEXT) STRICT", "the table's STRICT cannot be kept"),
        ("CREATE TABLE t (a INT, b TEXT) /* , */ without rowid", "the table's without rowid cannot be kept"),
        ("CREATE TABLE t (a INT, b TEXT GENERATED ALWAYS AS (a))", "the generated column b cannot be kept"),
        ("CREATE TABLE t (a INT, [B] TEXT AS (a))", "the generated column b cannot be kept"),
        ("CREATE VIRTUAL TABLE t USING fts5(a)", "a virtual table cannot be changed"),
    ],
)
def test_problems(old: str, problem: str) -> None:
    """If a part of the old table cannot be kept, the ValueError names it."""
    with pytest.raises(ValueError, match="cannot be") as caught:
        build_table_sql(old, NEW, ())
    assert str(caught.value) == problem
