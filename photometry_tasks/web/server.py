"""Serve the page of TODO-lists: it only reads, and only while a browser shows it."""

import asyncio
import contextlib
import math
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import uvicorn
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from photometry_tasks.errors import InvalidArgumentError, TodoError
from photometry_tasks.report.filters import FILTERS, parse_filters
from photometry_tasks.report.page import render, render_list
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import ListReader
from photometry_tasks.todolist import TodoList

__all__ = ["build_app", "serve"]

T = TypeVar("T")

#: Seconds between two updates, or so many times the processor time of an update, if that is longer; the most seconds.
_INTERVAL, _SHARE, _LONGEST = 2.0, 30.0, 30.0

#: Seconds after which a page is read again although no file has changed: a killed run changes none.
_OLDEST = 10.0

#: Seconds of a query; seconds between two signals to a browser; the most pages with other filters that are kept.
_LIMIT, _PING, _PAGES = 10.0, 15.0, 50

#: The variable of the environment with the token, for a server that is started again.
_TOKEN = "PHOTOMETRY_TASKS_TOKEN"  # noqa: S105 - its name

#: The parameters of an address that its links keep.
_KEPT = ("token", "list", "colour", *FILTERS)

_SCRIPT = Path(__file__).with_name("live.js")
_HEADERS = {
    # The page holds texts of any pipeline: nothing but our script runs, and no request leaves this host.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class _Board:
    """The pages of one list, read in one thread, and again when an update or their age demands it."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._reader = ListReader(location)
        # One thread: in the memory of each thread, a reader may keep a copy of the list.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="photometry_tasks")
        self._pages: dict[tuple[Any, ...], tuple[int, float, str]] = {}
        self._version = self._watchers = 0
        self._cost = 0.0
        self._changed = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """Return the result of a call in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def get_page(self, filters: Mapping[str, str], link: Callable[..., str]) -> str:
        """Return the content of the page, not older than the last update, and than its own processor time allows."""
        key = tuple(filters.get(name, "") for name in (*FILTERS, "colour"))
        async with self._lock:
            version, end, page = self._pages.get(key, (-1, 0.0, ""))
            if version != self._version or time.monotonic() >= end:
                version, cost = self._version, self._cost
                page = await self.run(partial(self._render, dict(filters), link))
                if len(self._pages) >= _PAGES:
                    self._pages.clear()
                self._pages[key] = version, time.monotonic() + _find_pause(self._cost - cost), page
            return page

    def _render(self, filters: dict[str, str], link: Callable[..., str]) -> str:
        begun = time.thread_time()
        try:
            constraints = parse_filters(filters)
            with self._reader.begin() as opened:
                opened.database.limit_time(_LIMIT)
                try:
                    return render_list(opened, constraints, filters.get("colour", "done"), link)
                finally:
                    with contextlib.suppress(SQLAlchemyError):  # of a server, after a failure
                        opened.database.limit_time(None)  # a copy in memory stays open
        except InvalidArgumentError as error:
            return render("message.html", message=str(error), hint="Change the filter above.")
        except (TodoError, OSError, SQLAlchemyError) as error:
            self._cost += _INTERVAL / _SHARE  # try less often
            hint = "The page tries again, and shows the list as soon as it can be read."
            return render("message.html", message=str(error), hint=hint)
        finally:
            self._cost += time.thread_time() - begun

    async def watch(self) -> AsyncIterator[str]:
        """Yield an event at each update, as long as a browser waits for it."""
        self._watchers += 1
        if self._ticker is None or self._ticker.done():
            self._cost = 0.0  # earlier pages delay no update
            self._ticker = asyncio.create_task(self._tick())
        try:
            seen = -1
            while True:
                if seen != self._version:
                    seen = self._version
                    yield f"data: {seen}\n\n"
                changed = self._changed
                try:
                    await asyncio.wait_for(changed.wait(), _PING)
                except TimeoutError:
                    yield ": alive\n\n"
        finally:
            self._watchers -= 1

    async def _tick(self) -> None:
        mark: object = None
        updated = -math.inf
        while self._watchers:
            cost, self._cost = self._cost, 0.0
            await asyncio.sleep(_find_pause(cost))
            new = await self.run(self._read_mark)
            if new != mark or new is None or time.monotonic() - updated >= _OLDEST:
                mark, updated = new, time.monotonic()
                self._version += 1
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()

    def _read_mark(self) -> object:
        """Return a value that changes with the list; None if only a query would tell."""
        path = self.location.path
        if path is None:
            return None
        found = []
        for file in (
            path,
            *(path.with_name(path.name + suffix) for suffix in ("-wal", "-results", "-status", "-lock")),
        ):
            with contextlib.suppress(OSError):
                status = file.stat()
                found.append((file.name, status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)


def _find_pause(cost: float) -> float:
    """Return the seconds from a page that took so much processor time to the next."""
    return min(max(_INTERVAL, _SHARE * cost), _LONGEST)


class _Site:
    """The addresses: `/` is a page, `/content` its changing part, `/events` its updates."""

    def __init__(self, target: str, token: str) -> None:
        self._token = token
        self._folder = Path(target) if "://" not in target and Path(target).is_dir() else None
        if self._folder is not None and (self._folder / "todo.sqlite").exists() and len(self._list_files()) == 1:
            self._folder = None  # as every command takes a folder
        self._single = None if self._folder is not None else _Board(parse_location(target))
        self._boards: dict[str, _Board] = {}

    def _list_files(self) -> list[str]:
        assert self._folder is not None  # noqa: S101 - narrows the type for mypy
        return sorted(path.name for path in self._folder.glob("*.sqlite") if path.is_file())

    def _find_board(self, request: Request) -> _Board | None:
        if self._single is not None:
            return self._single
        name = request.query_params.get("list", "")
        return self._open_board(name) if name in self._list_files() else None

    def _open_board(self, name: str) -> _Board:
        assert self._folder is not None  # noqa: S101 - narrows the type for mypy
        if name not in self._boards:
            self._boards[name] = _Board(parse_location(self._folder / name))
        return self._boards[name]

    def _link(self, request: Request, path: str = "/", /, **changes: object) -> str:
        """Return an address with the parameters of a request, some of them changed."""
        kept = {name: value for name, value in _read_parameters(request).items() if name in _KEPT}
        given = {name: value for name, value in (kept | changes).items() if value not in (None, "")}
        return f"{path}?{urlencode(given)}"

    async def _build_content(self, request: Request) -> str:
        board = self._find_board(request)
        if board is None:
            return await self._list_lists(request)
        given = _read_parameters(request)
        if unknown := given.keys() - {*_KEPT, "star"}:
            known = ", ".join((*FILTERS, "star"))
            message = f"The address has {', '.join(map(repr, sorted(unknown)))}, which no page has."
            return render("message.html", message=message, hint=f"A page has {known}.")
        if star := given.get("star", "").strip():
            return await board.run(partial(self._render_star, request, board.location, star))
        return await board.get_page(given, partial(self._link, request))

    def _render_star(self, request: Request, location: Location, star: str) -> str:
        try:
            number = int(star.removeprefix("TIC"))
        except ValueError:
            return render("message.html", message=f"{star!r} is no number of a star.", hint="Give its TIC number.")
        try:
            with TodoList(location) as todo:
                tasks = todo.star(number)
        except (TodoError, OSError, SQLAlchemyError) as error:
            return render("message.html", message=str(error), hint="Load the page again.")
        return render("star.html", starid=star, tasks=tasks, link=partial(self._link, request))

    async def _list_lists(self, request: Request) -> str:
        found = []
        for name in self._list_files():
            row: dict[str, Any] = {"name": name, "address": self._link(request, list=name), "error": ""}
            board = self._open_board(name)
            try:
                row |= await board.run(partial(_count, board.location))
            except (TodoError, OSError, SQLAlchemyError) as error:
                row["error"] = str(error)
            found.append(row)
        return render("lists.html", lists=found)

    async def show_page(self, request: Request) -> Response:
        """Return a whole page."""
        board = self._find_board(request)
        is_list = board is not None
        params = _read_parameters(request)
        live = {
            "script": self._link(request, "/live.js"),
            "events": self._link(request, "/events") if is_list else "",
            "home": self._link(request, **dict.fromkeys(FILTERS)) if is_list else "",
            "index": self._link(request, list=None, **dict.fromkeys(FILTERS)) if self._folder is not None else "",
            "hidden": {name: params[name] for name in _KEPT if name in params},
            "filters": FILTERS if is_list else (),
            "given": params,
        }
        location = None if board is None else board.location
        name = str(self._folder) if location is None else location.name
        page = render("page.html", name=name, content=await self._build_content(request), live=live)
        return Response(page, headers=_HEADERS, media_type="text/html")

    async def show_content(self, request: Request) -> Response:
        """Return the changing part of a page."""
        return Response(await self._build_content(request), headers=_HEADERS, media_type="text/html")

    async def show_script(self, _request: Request) -> Response:
        """Return the script of the page."""
        return Response(_SCRIPT.read_text(encoding="utf-8"), headers=_HEADERS, media_type="text/javascript")

    async def push(self, request: Request) -> Response:
        """Return a stream of events, one at each update."""
        board = self._find_board(request)
        if board is None:
            return PlainTextResponse("This folder has no such list.", 404, _HEADERS)
        return StreamingResponse(board.watch(), headers=_HEADERS, media_type="text/event-stream")

    def guard(self, show: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """Return a handler that answers only requests with the token."""

        async def answer(request: Request) -> Response:
            if not secrets.compare_digest(request.query_params.get("token", "").encode(), self._token.encode()):
                text = "This page needs the token of its address, which `photometry-tasks serve` has printed."
                return PlainTextResponse(text, 403, _HEADERS)
            response: Response = await show(request)
            return response

        return answer


def _read_parameters(request: Request) -> dict[str, str]:
    """Return the parameters of an address; several values of one name are joined by commas."""
    given = request.query_params
    return {name: ",".join(given.getlist(name)) for name in given}


def _count(location: Location) -> dict[str, Any]:
    from photometry_tasks.maintenance.status import get_status

    found = get_status(location)
    counts = found["status"]
    finished = found["numtasks"] - counts["PENDING"] - counts["STARTED"] - counts["UNKNOWN"]
    failed = counts["ERROR"] + counts["ABORT"]
    return {"tasks": found["numtasks"], "finished": finished, "failed": failed, "holder": found["holder"]}


def build_app(target: str, token: str) -> Starlette:
    """Return the application of a list, or of all lists in a folder.

    Parameters
    ----------
    target : str
        A TODO-file, a folder, or the URL of a list on a server.
    token : str
        The text that each address needs as its parameter `token`.
    """
    site = _Site(target, token)
    shown = {"/": site.show_page, "/content": site.show_content, "/events": site.push, "/live.js": site.show_script}
    return Starlette(routes=[Route(path, site.guard(show), methods=["GET"]) for path, show in shown.items()])


def serve(target: str, host: str, port: int) -> None:
    """Serve the page until a signal ends the process; print its address.

    Parameters
    ----------
    target : str
        See `build_app`.
    host : str
    port : int
        0 takes a free port.

    Raises
    ------
    OSError
        If the port is taken.
    """
    token = os.environ.get(_TOKEN, "").strip() or secrets.token_urlsafe(24)
    app = build_app(target, token)
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listener.getsockname()[1]}/?{urlencode({'token': token})}", flush=True)
        how: dict[str, Any] = {"log_level": "critical", "lifespan": "off", "timeout_graceful_shutdown": 1}
        uvicorn.Server(uvicorn.Config(app, **how)).run(sockets=[listener])
    sys.stdout.flush()
