"""The list of the stars that a photometry pipeline has yet to measure."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from photometry_tasks.constraints import build_constraints
    from photometry_tasks.status import STATUS
    from photometry_tasks.taskmanager import TaskManager

__all__ = ["STATUS", "TaskManager", "build_constraints"]

#: The modules of the public names, which are imported when a name is first used: a program that only asks for the
#: version need not load SQLAlchemy.
_MODULES = {"STATUS": "status", "TaskManager": "taskmanager", "build_constraints": "constraints"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
