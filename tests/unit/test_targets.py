"""The check of targets: the values of a row, the default values, and the lines of a list."""

import math
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photometry_tasks.errors import InvalidArgumentError, InvalidTargetError
from photometry_tasks.ingest.csv_lists import read_list
from photometry_tasks.ingest.targets import Defaults, Target, build_plain_target, build_targets, sort_targets
from photometry_tasks.rules.validation import show

ROW = {"starid": 5, "camera": 1, "ccd": 2, "tmag": 9.0, "sector": 3}
NO_DEFAULTS = Defaults(None, None, "ffi")


def build(defaults: Defaults = NO_DEFAULTS, **changes: Any) -> list[Target]:
    return list(build_targets(("row 1", {"starid": "TICID"}, MappingProxyType({**ROW, **changes})), defaults))


numbers = st.integers(1, 60) | st.just(2**63 - 1)
one_to_four = st.integers(1, 4)
plain_rows = st.fixed_dictionaries(
    {"starid": numbers, "camera": one_to_four, "ccd": one_to_four, "tmag": st.floats(-10, 30) | st.just(2.0)},
    optional={
        **dict.fromkeys(("sector", "cadence"), numbers),
        "cbv_area": st.integers(110, 444),
        "datasource": st.sampled_from(["ffi", "tpf"]),
    },
)
integers = [0, -1, 5, 109, 445, 2**59, 2**63 - 1, 2**63, 2**70, np.int64(2)]
reals = [5.0, -0.0, -99.0, 30.1, 999.0, math.nan, math.inf, np.float64(-99)]
texts = ["5", "", "\0", "psf", "tpf:9", "tpf:0012", "both"]
changes = [
    {column: value} for column in Target.__dataclass_fields__ for value in (None, True, *integers, *reals, *texts, b"5")
]
some_sector = st.none() | st.integers(1, 60)
all_defaults = (
    st.builds(Defaults, some_sector, st.none(), st.sampled_from(["ffi", "tpf", "both"]))
    | st.builds(Defaults, some_sector, st.integers(1, 120), st.just("tpf"))
    | st.builds(Defaults, some_sector, st.integers(121, 1800), st.just("ffi"))
)


@settings(max_examples=25, deadline=None)
@given(plain=plain_rows, defaults=all_defaults)
def test_the_short_way_gives_the_same_target(plain: dict[str, Any], defaults: Defaults) -> None:
    """If the values of a row need no conversion, the fast path gives the same target as the full conversion."""
    for change in ({}, *changes):
        row = {**plain, **change}
        before = repr(row)
        target = build_plain_target(row, defaults)
        if target is not None:
            assert repr([target]) == repr(list(build_targets(("row 1", {}, row), defaults)))
        assert repr(row) == before


def test_the_short_way_is_taken() -> None:
    """A dict of plain values takes the fast path; other mappings, texts and numbers take the full conversion."""
    assert build_plain_target(ROW, NO_DEFAULTS) == build()[0]
    assert build_plain_target({**ROW, "cadence": 20, "cbv_area": 123, "datasource": "tpf"}, NO_DEFAULTS) is not None
    assert build_plain_target(MappingProxyType(ROW), NO_DEFAULTS) is None
    texts = ({"starid": "5"}, {"method": "psf"}, {"datasource": "both"}, {"datasource": "tpf:9"})
    for change in (
        *texts,
        {"camera": np.int8(1)},
        {"ccd": 2**63},
        {"tmag": None},
        {"tmag": math.inf},
        {"tmag": math.nan},
    ):
        assert build_plain_target({**ROW, **change}, NO_DEFAULTS) is None


def test_both_is_two_targets() -> None:
    """If the default is both, a row gives a target in a pixel file and a target in full-frame images."""
    tpf, ffi = build(Defaults(None, None, "both"), tmag=2.0, sector=27)
    assert (tpf.datasource, tpf.cadence, tpf.method) == ("tpf", 120, None)
    assert (ffi.datasource, ffi.cadence, ffi.method) == ("ffi", 600, "halo")
    assert [target.datasource for target in build(Defaults(None, None, "both"), datasource="tpf:9")] == ["tpf:9"]


@pytest.mark.parametrize(
    ("cadence", "datasource"), [(20, "both"), (1800, "both"), (20, "ffi"), (120, "ffi"), (200, "tpf"), (1800, "tpf")]
)
def test_a_cadence_of_the_other_kind(cadence: int, datasource: str) -> None:
    """The cadence of pixel files is no default for full-frame images, nor the reverse."""
    with pytest.raises(InvalidArgumentError, match=rf"cadence={cadence}: .*not with '{datasource}'; correct either"):
        Defaults(None, cadence, datasource)
    kind, other = ("tpf", "ffi") if cadence <= 120 else ("ffi", "tpf:9")
    assert build(Defaults(None, cadence, kind))[0].cadence == cadence
    with pytest.raises(InvalidTargetError, match=f"row 1: column cadence has no value, and {cadence} s is for"):
        build(Defaults(None, cadence, kind), datasource=other)
    assert build_plain_target({**ROW, "datasource": other}, Defaults(None, cadence, kind)) is None
    with pytest.raises(InvalidTargetError, match=f"row 1: column cadence: {cadence}: the two tasks of"):
        build(Defaults(None, None, "both"), cadence=cadence)


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        *(("starid", text, int(text)) for text in ("007", "0" * 50 + "1", "9" * 18, f"{10**18}", f"{2**63 - 1}")),
        *(("datasource", text, "tpf:12") for text in ("tpf:12", "tpf:0012", "tpf:" + "0" * 30 + "12")),
        ("datasource", f"tpf:{2**63 - 1}", f"tpf:{2**63 - 1}"),
        *(("tmag", text, value) for text, value in [(".5", 0.5), ("5.", 5.0), ("+1e1", 10.0), ("-0.0", 0.0)]),
        *(("tmag", text, value) for text, value in [("-10", -10.0), ("30", 30.0), ("nan", None), ("NaN", None)]),
        *((column, text, int(text)) for column in ("camera", "ccd") for text in ("1", "4")),
        *(("cbv_area", text, int(text)) for text in ("110", "444")),
    ],
)
def test_texts(column: str, text: str, value: Any) -> None:
    """A text of digits, as in CSV files, is a number, and each datasource has one spelling."""
    (target,) = build(NO_DEFAULTS, **{column: text})
    assert repr(getattr(target, column)) == repr(value)


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
        *(("camera", value, "an integer is expected") for value in (True, 1.0, b"1", np.ma.masked)),
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
        build(**{column: value})
    theirs = "TICID" if column == "starid" else column
    assert str(caught.value).startswith(f"row 1: column {theirs}: {show(value)}: {problem}")


def test_order() -> None:
    """Targets are ordered by magnitude, star id and datasource; targets without a magnitude come last."""
    stars = [
        (-1.0, 9, "tpf"),
        (-0.0, 1, "ffi"),
        (0.0, 2, "ffi"),
        (5.0, 1, "tpf"),
        (5.0, 2, "ffi"),
        (5.0, 2, "tpf"),
        (None, 1, "tpf"),
        (None, 3, "ffi"),
    ]
    ordered = [build(tmag=tmag, starid=starid, datasource=source)[0] for tmag, starid, source in stars]
    assert sort_targets(ordered[::-1]) == ordered


# --- lines of a list ---


def read(path: Path, text: str, sector: int | None = None) -> list[tuple[str, dict[str, Any]]]:
    path.write_bytes(text.encode())
    return [(where.removeprefix(f"{path}, "), dict(row)) for where, _, row in read_list(path, sector)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "list.csv"


def test_a_quoted_field_over_lines(path: Path) -> None:
    """Within a quoted field, a line that begins with '#' is no comment, and a blank line is kept."""
    for line_end in ("\n", "\r\n", "\r"):
        text = 'starid,camera,ccd,tmag,note\n1,1,1,9,"a\n# sector 5\n\n#"\n# sector 7\n\n2,1,1,9,5" tube\n# end\n'
        (first, first_row), (second, second_row) = read(path, text.replace("\n", line_end), 7)
        assert (first, second) == ("line 5", "line 8")
        assert first_row["note"] == "a\n# sector 5\n\n#".replace("\n", line_end)
        assert second_row["note"] == '5" tube'


def test_lines(path: Path) -> None:
    """A list may have a byte order mark, blank lines, comments, blanks and quoted line breaks."""
    text = '\ufeffTICID , Camera,CCD,tmag,note\r\n\r\n1,2,3, 9.5 ,"a\r\nb"\r\n# a comment\r\n 2,2,3,,\r\n'
    (first, first_row), (second, second_row) = read(path, text)
    assert (first, second) == ("line 4", "line 6")
    assert first_row == {"starid": "1", "camera": "2", "ccd": "3", "tmag": "9.5", "note": "a\r\nb"}
    assert second_row == {"starid": "2", "camera": "2", "ccd": "3", "tmag": None}


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
