"""The URL of a list on a server."""

from typing import Any

import pytest

from photometry_tasks.storage.location import parse_location
from photometry_tasks.storage.postgresql.url import build_arguments, hide_password


@pytest.mark.parametrize(
    ("url", "name", "arguments"),
    [
        ("postgres://h/db", "postgres://h/db", {"host": "h", "dbname": "db"}),
        ("postgresql://?service=astro", "postgresql://", {"service": "astro"}),
        (
            "postgresql+psycopg://j%40x:s%40c%41r+t@h:5433/my%20db",
            "postgresql+psycopg://j%40x:***@h:5433/my%20db",
            {"user": "j@x", "password": "s@cAr+t", "host": "h", "port": "5433", "dbname": "my db"},
        ),
        ("postgresql://j:s/c:r?t#@h", "postgresql://j:***@h", {"user": "j", "password": "s/c:r?t#", "host": "h"}),
        ("postgresql://%2Frun%2Fpg:1", "postgresql://%2Frun%2Fpg:1", {"host": "/run/pg", "port": "1"}),
        ("postgresql:///db?host=/run/pg", "postgresql:///db", {"host": "/run/pg", "dbname": "db"}),
        ("postgresql://a:1,b,[::1]:3", "postgresql://a:1,b,[::1]:3", {"host": "a,b,::1", "port": "1,,3"}),
        ("postgresql:///?host=a:1&host=b:2", "postgresql:///", {"host": "a,b", "port": "1,2"}),
        (
            "postgresql://h?sslmode=a&sslmode=b&options=-c%20jit%3Doff&keepalives=0",
            "postgresql://h",
            {"host": "h", "sslmode": "b", "options": "-c jit=off", "keepalives": "0"},
        ),
        ("postgresql://h?prepare_threshold=0", "postgresql://h", {"host": "h", "prepare_threshold": 0}),
        ("postgresql://h?prepare_threshold=None", "postgresql://h", {"host": "h", "prepare_threshold": None}),
    ],
)
def test_a_url(url: str, name: str, arguments: dict[str, Any]) -> None:
    """The forms of libpq and of SQLAlchemy are understood, and shown without password and query."""
    location = parse_location(url)
    assert (location.name, hide_password(location.url), location.path) == (name, name, None)
    assert build_arguments(location.url) == arguments


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+psycopg2://joe:secret@h/db", r"a URL that begins with postgresql\+psycopg://"),
        ("postgresql+asyncpg://joe:secret@h/db", r"a URL that begins with postgresql\+psycopg://"),
        ("mysql://joe:secret@h/db", r"a URL that begins with postgresql\+psycopg://"),
        ("postgresql://joe:se@cret/x@h/db", "write the @ in a password as %40"),
        ("postgresql://joe:se@cret?x@h/db", "write the @ in a password as %40"),
        ("postgresql://joe:secret/db", "user:password@host/database is expected"),
        ("postgresql://joe:secret@h:x/db", "user:password@host/database is expected"),
        ("mysql://joe:secret", "user:password@host/database is expected"),
        ("postgresql://joe:secret@h/db?connect_time=1", r"url='…\?connect_time': libpq has no such parameter"),
        ("postgresql://joe:secret@h/db?autocommit=true", r"url='…\?autocommit': libpq has no such parameter"),
        ("postgresql://joe:secret@h/db?row_factory=x", r"url='…\?row_factory': libpq has no such parameter"),
        ("postgresql://joe:secret@h/db?prepare_threshold=-1", "prepare_threshold='-1': a non-negative integer"),
        ("postgresql://joe:secret@h/db?prepare_threshold=x", "prepare_threshold='x': a non-negative integer"),
        (f"postgresql://joe:secret@h/db?prepare_threshold={'9' * 5000}", "a non-negative integer is expected"),
        ("postgresql://joe:secret@h/db?prepare_threshold=²", "a non-negative integer is expected"),
        (f"postgresql://joe:secret@h/db?port={'9' * 5000}", "non-integer port"),
        ("postgresql://joe:secret@h/db?port=x", "non-integer port"),
    ],
)
def test_an_invalid_url(url: str, message: str) -> None:
    """Any other URL is refused with the way out, and no part of a password is shown."""
    with pytest.raises(ValueError, match=message) as caught:
        build_arguments(parse_location(url).url)
    assert "cret" not in str(caught.value)
