"""The list of the stars that a photometry pipeline has yet to measure."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from photometry_tasks.constraints import build_constraints
    from photometry_tasks.ingest import add_targets
    from photometry_tasks.runner import run_tasks
    from photometry_tasks.status import STATUS
    from photometry_tasks.taskmanager import TaskManager
    from photometry_tasks.todolist import TodoList

    __version__: str

__all__ = ["STATUS", "TaskManager", "TodoList", "__version__", "add_targets", "build_constraints", "run_tasks"]

#: The modules of the public names, which are imported when a name is first used: a program that only asks for the
#: version need not load SQLAlchemy.
_MODULES = {
    "STATUS": "status",
    "TaskManager": "taskmanager",
    "TodoList": "todolist",
    "add_targets": "ingest",
    "build_constraints": "constraints",
    "run_tasks": "runner",
}


def __getattr__(name: str) -> Any:
    value: Any
    if name == "__version__":
        from importlib.metadata import version

        value = version(__name__)
    elif name in _MODULES:
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
