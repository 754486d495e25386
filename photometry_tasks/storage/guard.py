"""Whether a script that opens a list for work is only being imported: by a worker process, or for a function of it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from photometry_tasks.errors import UnguardedScriptError

#: The name of a worker process, and its exit code if it imports a script without a guard: the run gives the message.
WORKER, UNGUARDED = "photometry_tasks worker", 86

#: The names under which workers import the script of a run: those of `multiprocessing` and of `mpi4py.futures`.
_IMPORTED_MAINS = ("__mp_main__", "__worker__")

#: The names of the modules that commands import now.
_imported: list[str] = []


@contextmanager
def importing(name: str) -> Iterator[None]:
    """Refuse to open lists for work meanwhile, because a module is imported only for a function of it."""
    _imported.append(name)
    try:
        yield
    finally:
        _imported.pop()


def check_no_import() -> None:
    """Check that no script is being imported whose statements would run again in each process that imports it.

    Raises
    ------
    UnguardedScriptError
        If a command imports it.
    SystemExit
        If a worker process imports it: the process ends without a traceback.
    """
    if _imported:
        raise UnguardedScriptError(path=_imported[-1])
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") in _IMPORTED_MAINS:
            process = sys.modules.get("multiprocessing.process")
            is_ours = process is not None and process.current_process().name == WORKER
            raise SystemExit(UNGUARDED if is_ours else str(UnguardedScriptError(path=frame.f_code.co_filename)))
        frame = frame.f_back
