"""The check of targets: the values of a row, the default values, and the lines of a list."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photometry_tasks.errors import InvalidArgumentError, InvalidTargetError
from photometry_tasks.ingest.csv_lists import read_list
from photometry_tasks.ingest.targets import _RULES, Chunk, Defaults, build_targets
from photometry_tasks.rules.validation import show

ROW = {"starid": 5, "camera": 1, "ccd": 2, "tmag": 9.0, "sector": 3}
NO_DEFAULTS = Defaults(None, None, "ffi")


def build(*rows: dict[str, Any], defaults: Defaults = NO_DEFAULTS) -> dict[str, Any]:
    """Return the targets of rows, each `ROW` with changes, by column."""
    full: list[dict[str, Any]] = [{**ROW, **row} for row in rows or [{}]]
    columns = {name: [row.get(name) for row in full] for name in {name for row in full for name in row}}
    return dict(build_targets(Chunk(columns, len(full), lambda place: f"row {place}", {"starid": "TICID"}), defaults))


integers = st.sampled_from([0, -1, 1, 4, 5, 109, 120, 445, 2**59, 2**63 - 1, 2**63, 2**70, np.int64(2), True])
reals = st.floats() | st.sampled_from([5.0, -0.0, -99.0, 30.1, 999.0, math.nan, math.inf, np.float64(-99), 2])
texts = st.sampled_from(
    ["5", "007", "1_0", "", "\0", "1e1", "psf", "ffi", "tpf", "tpf:9", "tpf:0012", np.str_("ffi"), b"5"]
)


@settings(max_examples=200)
@given(
    column=st.sampled_from(sorted(_RULES)), values=st.lists(st.one_of(integers, reals, texts), min_size=1, max_size=3)
)
def test_a_column_is_checked_as_its_values(column: str, values: list[Any]) -> None:
    """A column that is checked as a whole is the same as its values, converted one by one."""
    rule, before = _RULES[column], repr(values)
    try:
        together = rule.convert_all(values)
    except (ValueError, TypeError):
        pass
    else:
        assert repr(together) == repr([rule.convert(value) for value in values])
        assert all(type(value) in (int, float, str, type(None)) for value in together)
    assert repr(values) == before


@pytest.mark.parametrize(
    ("column", "values"),
    [("starid", [1, 2**63 - 1]), ("starid", ["1", "007"]), ("tmag", [-10.0, 30.0]), ("tmag", ["9", "-1.5e0"])],
)
def test_plain_columns_need_no_conversion(column: str, values: list[Any]) -> None:
    """Columns of plain numbers, and of texts that spell numbers, are checked as a whole."""
    assert len(_RULES[column].convert_all(values)) == 2


def test_both_is_two_targets() -> None:
    """If the default is both, a row without a datasource gives two targets."""
    both = Defaults(None, None, "both")
    targets = build({"starid": 1}, {"starid": 2, "datasource": "tpf:9"}, {"starid": 3}, defaults=both)
    assert targets["datasource"] == ["tpf", "ffi", "tpf:9", "tpf", "ffi"]
    assert targets["starid"] == [1, 1, 2, 3, 3]
    assert "cadence" not in targets


@pytest.mark.parametrize(
    ("rows", "where", "column"),
    [
        ([{}, {"cadence": 0}, {"starid": 0}], "row 1", "cadence"),
        ([{}, {"cadence": 0, "tmag": 99.0}, {"starid": 0}], "row 1", "tmag"),
        ([{"method": 5}, {"cadence": 0}, {"starid": 0}], "row 0", "method"),
        ([{}, {"starid": None}, {"camera": None}], "row 1", "TICID"),
    ],
)
def test_the_first_invalid_row(rows: list[dict[str, Any]], where: str, column: str) -> None:
    """Of several invalid rows the error names the first, and its first invalid column."""
    with pytest.raises(InvalidTargetError, match=f"^{where}: column {column}"):
        build(*rows)


@pytest.mark.parametrize(
    ("cadence", "datasource"), [(20, "both"), (1800, "both"), (20, "ffi"), (120, "ffi"), (200, "tpf"), (1800, "tpf")]
)
def test_a_cadence_of_the_other_kind(cadence: int, datasource: str) -> None:
    """The cadence of pixel files is no default for full-frame images, nor the reverse."""
    with pytest.raises(InvalidArgumentError, match=rf"cadence={cadence}: .*not with '{datasource}'; correct either"):
        Defaults(None, cadence, datasource)
    kind, other = ("tpf", "ffi") if cadence <= 120 else ("ffi", "tpf:9")
    assert build({}, {"cadence": 7}, defaults=Defaults(None, cadence, kind))["cadence"] == [cadence, 7]
    with pytest.raises(InvalidTargetError, match=f"row 1: column cadence has no value, and {cadence} s is for"):
        build({}, {"datasource": other}, defaults=Defaults(None, cadence, kind))
    with pytest.raises(InvalidTargetError, match=f"row 1: column cadence: {cadence}: the two tasks of"):
        build({}, {"cadence": cadence}, defaults=Defaults(None, None, "both"))


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        *(("starid", text, int(text)) for text in ("007", "0" * 50 + "1", "9" * 18, f"{10**18}", f"{2**63 - 1}")),
        *(("datasource", text, "tpf:12") for text in ("tpf:12", "tpf:0012", "tpf:" + "0" * 30 + "12")),
        ("datasource", f"tpf:{2**63 - 1}", f"tpf:{2**63 - 1}"),
        *(("tmag", text, value) for text, value in [(".5", 0.5), ("5.", 5.0), ("+1e1", 10.0), ("-0.0", -0.0)]),
        *(("tmag", text, value) for text, value in [("-10", -10.0), ("30", 30.0), ("nan", None), ("NaN", None)]),
        *((column, text, int(text)) for column in ("camera", "ccd") for text in ("1", "4")),
        *(("cbv_area", text, int(text)) for text in ("110", "444")),
    ],
)
def test_texts(column: str, text: str, value: Any) -> None:
    """A text of digits, as in CSV files, is a number, and each datasource has one spelling."""
    for rows in ([{column: text}], [{column: text}, {column: None}]):
        if value is None or len(rows) == 1 or column == "tmag":
            assert repr(build(*rows).get(column, [None])[0]) == repr(value)


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        *(("starid", text, "a whole number is expected") for text in ("1_0", "٣", " 5", "5\n", "+5", "5.0", "", "-1")),
        *(("starid", value, "a positive number is expected") for value in ("0", "000", 0, -1, np.int64(-(2**63)))),
        *(
            ("starid", value, "an integer of at most 64 bits is expected")
            for value in (f"{2**63}", "9" * 20, "9" * 5000, 2**63, np.uint64(2**63))
        ),
        *(("tmag", text, "a number is expected") for text in ("1_0", "٣", " 5", "5\n", "0x1p3", "infinity", "", ".")),
        *(("tmag", value, "a finite number is expected") for value in ("1e400", "-inf", np.float32("inf"))),
        *(("tmag", value, "a number is expected") for value in (True, b"5", 1j)),
        *(("camera", value, "an integer is expected") for value in (True, 1.5, b"1", np.ma.masked)),
        *(
            (column, value, "a number from 1 to 4 is expected")
            for column in ("camera", "ccd")
            for value in (0, "0", 5, "5", -1, 99, 2**59, np.int8(5))
        ),
        *(("cbv_area", value, "a number from 110 to 444 is expected; leave it") for value in (0, -1, 109, "445", 999)),
        ("ccd", 2**63, "an integer of at most 64 bits is expected"),
        *(
            (column, value, "a positive number is expected")
            for column in ("cadence", "sector")
            for value in (0, "0", -9)
        ),
        *(
            ("tmag", value, "a magnitude from -10 to 30 is expected; leave it empty")
            for value in (-99.0, "-99", "-10.01", 30.5, "99.99", 999, -9999, 1e20, "1e300", np.float32(99))
        ),
        *(
            ("datasource", text, "'ffi', 'tpf' or 'tpf:<starid>' is expected")
            for text in ("tpf:", "tpf:x", "ffi\n", "", "tpf:0", "tpf:-1", f"tpf:{2**63}", "tpf:9\0", "tpf:\ud800")
        ),
        *(("method", value, "a text is expected") for value in (b"psf", 5)),
        *(("method", text, "a text of printable characters is") for text in ("p\0", "\ud800", "p\n", "\x1b[2J")),
    ],
)
def test_wrong_values(column: str, value: Any, problem: str) -> None:
    """An error names the row, the column as in its source, the value and the remedy."""
    with pytest.raises(InvalidTargetError) as caught:
        build({}, {column: value})
    theirs = "TICID" if column == "starid" else column
    assert str(caught.value).startswith(f"row 1: column {theirs}: {show(value)}: {problem}")


# --- lines of a list ---


def read(path: Path, text: str, sector: int | None = None) -> list[tuple[str, dict[str, Any]]]:
    path.write_bytes(text.encode())
    return [
        (chunk.locate(place).removeprefix(f"{path}, "), {name: values[place] for name, values in chunk.columns.items()})
        for chunk in read_list(path, sector)
        for place in range(chunk.number)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "list.csv"


def test_a_quoted_field_over_lines(path: Path) -> None:
    """Within a quoted field, a line that begins with '#' is no comment, and a blank line is kept."""
    for line_end in ("\n", "\r\n", "\r"):
        text = 'starid,camera,ccd,tmag,method\n1,1,1,9,"a\n# sector 5\n\n#"\n# sector 7\n\n2,1,1,9,5" tube\n# end\n'
        (first, first_row), (second, second_row) = read(path, text.replace("\n", line_end), 7)
        assert (first, second) == ("line 5", "line 8")
        assert first_row["method"] == "a\n# sector 5\n\n#".replace("\n", line_end)
        assert second_row["method"] == '5" tube'


def test_lines(path: Path) -> None:
    """A list may have a byte order mark, blank lines, comments, blanks and quoted line breaks."""
    text = '\ufeffTICID , Camera,CCD,tmag,method\r\n\r\n1,2,3, 9.5 ,"a\r\nb"\r\n# a comment\r\n 2,2,3,,\r\n'
    (first, first_row), (second, second_row) = read(path, text)
    assert (first, second) == ("line 4", "line 6")
    assert first_row == {"starid": "1", "camera": "2", "ccd": "3", "tmag": "9.5", "method": "a\r\nb"}
    assert second_row == {"starid": "2", "camera": "2", "ccd": "3", "tmag": None, "method": None}


@pytest.mark.parametrize(
    ("comment", "sector"),
    [
        *((comment, 14) for comment in ("# Sector 14", "# sector: 14", "#sector=0014.", "# target list for sector 14")),
        *((comment, 7) for comment in ("# SECTOR  7", "# sector 7\n# 7 orbits of sector 9", "# Targets of sector 7")),
        ("# Full target list for orbit 35, sector 14", 14),
        ("# Full target list for orbits 35 and 36, sector 14", 14),
        *((comment, None) for comment in ("# subsector 2", "#", "# by sector", "# 14")),
        *((f"# {text}", ValueError) for text in ("Sector 14, camera 1", "sectors 1", "sectors 1-13", "sector: -1")),
        *((f"# {text} sector 5", ValueError) for text in ("Not observed in", "never observed:", "also seen in", "in")),
        *((f"# {text}", ValueError) for text in ("sector 3 removed", "From sectors 3 4 5; sector 6", "sector 7 ff.")),
        *((f"# Targets of sector {number}", ValueError) for number in ("1-13", "1–13", "1, 2", "1/2", "1.5", "1 & 2")),
        *(
            (f"# Sector {number}", ValueError)
            for number in ("1 and 2", "1 to 13", "1, and 2", "1 on", "5b", "9" * 5000)
        ),
        *((f"# All stars {word} sector 27", ValueError) for word in ("since", "before TESS", "not in")),
        ("# sector 1 up to sector 13", ValueError),
        ("# sector 1\n# sector 2", ValueError),
    ],
)
def test_the_sector_of_a_comment(path: Path, comment: str, sector: Any) -> None:
    """A comment before a list gives its sector if it names one, and the list has no column for it."""
    text = "{}\nstarid,camera,ccd,tmag{}\n1,1,1,9{}\n"
    ((_, found),) = read(path, text.format(comment, ",sector", ",5"))
    assert found["sector"] == "5"
    if sector is ValueError:
        with pytest.raises(InvalidTargetError, match=r"list\.csv(, line 1)?: the .*choose a sector with --sector"):
            read(path, text.format(comment, "", ""))
        ((_, found),) = read(path, text.format(comment, "", ""), 2)
        assert found.get("sector") in (None, 2)
    else:
        ((_, found),) = read(path, text.format(comment, "", ""))
        assert found.get("sector") == sector


def test_a_comment_between_rows(path: Path) -> None:
    """A comment between the rows must not contradict those before the list, as in two lists that were joined."""
    text = "# sector 1\nstarid,camera,ccd,tmag\n1,1,1,9\n# sector 2\n2,1,1,9\n"
    with pytest.raises(InvalidTargetError, match=r"the comments name several sectors \(1, 2\)"):
        read(path, text)
    assert len(read(path, text.replace("sector 2", "sector 1"))) == 2
