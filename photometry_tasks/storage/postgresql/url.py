"""The URL of a database on a PostgreSQL server, in the forms of libpq and of SQLAlchemy."""

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from photometry_tasks.rules.validation import invalid_argument

if TYPE_CHECKING:
    from sqlalchemy import URL

_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg")

#: A host, an IPv6 address or the percent-encoded directory of a socket; and the port.
_HOST = r"(\[[^]/?@]*\]|[^][:,/?@]*)(?::(\d*))?"
#: An unquoted @ after the login is refused: it may belong to the password, whose end would be shown as a host.
_URL = re.compile(
    r"(?P<scheme>[\w+]+)://(?P<login>(?P<user>[^:/@]*)(?P<password>:[^@]*)?@)?"
    rf"(?P<hosts>{_HOST}(,{_HOST})*)(?P<rest>(?P<database>/[^?@]*)?(\?[^@]*)?)"
)


def hide_password(url: str) -> str:
    """Return a URL for display, without password and query.

    Raises
    ------
    InvalidArgumentError
        If the URL is not that of a PostgreSQL server.
    """
    found = _URL.fullmatch(url)
    if found is None:
        # The error must not show the URL, which may hold a password.
        remedy = "postgresql+psycopg://user:password@host/database is expected; write the @ in a password as %40"
        raise invalid_argument("url", "…", remedy)
    login = found["login"] and found["user"] + (":***@" if found["password"] else "@")
    name = f"{found['scheme']}://{login or ''}{found['hosts']}{found['database'] or ''}"
    if found["scheme"] not in _SCHEMES:
        raise invalid_argument("url", name, "a path, or a URL that begins with postgresql+psycopg://, is expected")
    return name


def build_arguments(url: str) -> dict[str, Any]:
    """Return the driver's arguments for a URL that `hide_password` accepts.

    Raises
    ------
    InvalidArgumentError
        If the URL has a parameter that neither libpq nor the driver knows, or an invalid port or threshold.
    DriverMissingError
    """
    from sqlalchemy.exc import ArgumentError  # only needed with a server

    from photometry_tasks.storage.postgresql.dbapi import build_dialect, find_parameters

    name = hide_password(url)
    try:
        _, found = build_dialect().create_connect_args(_parse(url))
    except ArgumentError as error:
        raise invalid_argument("url", name, error) from None
    # As in libpq, the last of several values counts.
    arguments: dict[str, Any] = {key: value if isinstance(value, str) else value[-1] for key, value in found.items()}
    if unknown := sorted(arguments.keys() - find_parameters()):
        raise invalid_argument("url", f"…?{unknown[0]}", "libpq has no such parameter; correct it, or leave it out")
    if (threshold := arguments.get("prepare_threshold")) is not None:
        is_none = threshold.lower() == "none"
        if not is_none and not re.fullmatch("[0-9]{1,9}", threshold):
            remedy = "a non-negative integer is expected, or none, with which no statement is prepared"
            raise invalid_argument("prepare_threshold", threshold, remedy)
        arguments["prepare_threshold"] = None if is_none else int(threshold)
    return arguments


def _parse(url: str) -> "URL":
    """Return the URL of SQLAlchemy, with the hosts and ports in its query."""
    from sqlalchemy import make_url

    found: Any = _URL.fullmatch(url)
    match_host: Any = re.compile(_HOST).fullmatch
    parsed = make_url(f"postgresql+psycopg://{found['login'] or ''}{found['rest']}")
    hosts, ports = zip(*(match_host(host).groups("") for host in found["hosts"].split(",")), strict=True)
    given = {"host": ",".join(unquote(host.strip("[]")) for host in hosts), "port": ",".join(ports)}
    return parsed.update_query_dict({k: v for k, v in given.items() if v.strip(",") and k not in parsed.query})
