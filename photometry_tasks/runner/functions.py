"""The pipeline's function: find it by its name, check it, and bring it to the workers."""

import functools
import importlib
import inspect
import logging
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from photometry_tasks.errors import InvalidArgumentError, UnguardedScriptError
from photometry_tasks.rules.validation import show
from photometry_tasks.runner.task import PhotometryFunction, describe_error, find_user_trace, format_error
from photometry_tasks.storage.guard import importing
from photometry_tasks.text import list_first

_logger = logging.getLogger("photometry_tasks")

#: Calls of these functions return no result at once.
_NOT_PLAIN = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)

_WRONG_FILE = "workers import a file by its name, which has to end with .py and hold no other dot; rename it"

#: The libraries of executors, and the extras that install them.
_EXTRAS = {"mpi4py": "mpi", "distributed": "dask"}

#: The most names that a message lists.
_MOST_NAMES = 5

#: Bytes above which a pickled function is reported, because each task sends it to a worker.
_LARGE = 10**6


class PortableFunction:
    """A function that pickle cannot send to workers, with a call that returns it there.

    It can be sent on from there: Dask's scheduler unpickles a function before it sends it to a worker.
    """

    def __init__(self, function: PhotometryFunction, find: Callable[..., PhotometryFunction], *arguments: str | bytes):
        self._function = function
        self._call = find, arguments

    def __call__(self, task: dict[str, Any]) -> Mapping[str, Any]:
        """Call the function in this process, of which the worker is a thread."""
        return self._function(task)

    def __reduce__(self) -> tuple[Callable[..., PhotometryFunction], tuple[str | bytes, ...]]:
        return self._call


# --- by name ---------------------------------------------------------------------------------------------


def import_function(name: str) -> PhotometryFunction:
    """Return the function with a name of the form `package.module:function` or `path/to/file.py:function`.

    Raises
    ------
    InvalidArgumentError
        If there is no such function, or it cannot be called with a task.
    UnguardedScriptError
    """
    function = check_function(import_object(name, "FUNCTION"), argument="FUNCTION", value=repr(name))
    place, _, attribute = name.rpartition(":")
    return PortableFunction(function, _find, str(Path(place).absolute()) if _is_path(place) else place, attribute)


def import_object(name: str, argument: str) -> Any:
    """Return the callable object with a name of these forms, which was given as an argument."""
    refuse = partial(InvalidArgumentError, argument=argument, value=repr(name))  # the name as a whole
    place, _, attribute = name.rpartition(":")
    if fault := _find_fault(place, attribute, name):
        raise refuse(remedy=fault)
    try:
        with importing(place):
            module = _import(place)
    except UnguardedScriptError:
        raise
    except (Exception, SystemExit) as error:  # the module may raise any error
        raise refuse(remedy=_explain(error)) from error
    file = getattr(module, "__file__", None)
    if _is_path(place) and not (file and Path(place).samefile(file)):
        raise refuse(remedy=f"{file or 'Python'} has a module {module.__name__} already; rename the file")
    found = getattr(module, attribute, None)
    if not callable(found):
        raise refuse(remedy=_describe_lack(module, place, attribute))
    return found


def _is_path(place: str) -> bool:
    return place.endswith(".py") or os.sep in place


def _find_fault(place: str, attribute: str, name: str) -> str | None:
    """Return what is wrong with the name of an object, as far as it can be said before the import."""
    forms = "give it as package.module:function or path/to/file.py:function"
    if not place or not attribute:
        module = name.rstrip(":")
        is_known = _is_path(module) or Path(f"{module}.py").is_file()
        return f"it names no function; {f'give it as {module}:FUNCTION' if is_known else forms}"
    if not attribute.isidentifier():
        return f"{attribute!r} is not the name of a function; {forms}"
    if not _is_path(place):
        is_module = all(map(str.isidentifier, place.split(".")))
        return None if is_module else f"{place!r} is not the name of a module; {forms}"
    path = Path(place)
    if path.is_dir():
        files = (f"{file}:{attribute}" for file in sorted(path.glob("*.py")) if file.stem != "__init__")
        return f"{place} is a directory; give a file in it{_list(', for example', files)}"
    if not path.is_file():
        names = [file.stem for file in path.parent.glob("*.py")]
        near = [str(path.with_name(f"{other}.py")) for other in _find_near(path.stem, names)]
        return f"the file {place} does not exist{_list('; try', near) or '; correct its name'}"
    if path.suffix != ".py" or "." in path.stem:
        return _WRONG_FILE
    return None


@functools.cache  # a worker finds the function again for each task
def _find(place: str, attribute: str) -> PhotometryFunction:
    return PortableFunction(getattr(_import(place), attribute), _find, place, attribute)


def _import(place: str) -> ModuleType:
    """Import a module, or a file as the module that every process takes it for."""
    if not _is_path(place):
        sys.path.insert(0, "")  # as with `python -m`, modules in the current directory can be imported
        return importlib.import_module(place)
    path = Path(place).absolute()
    folder, names = path.parent, [path.stem]
    while (folder / "__init__.py").exists():  # a package, whose modules import one another
        folder, names = folder.parent, [folder.name, *names]
    sys.path.insert(0, str(folder))
    return importlib.import_module(".".join(names))


def _explain(error: BaseException) -> str:
    """Return why a module cannot be imported, with the place in the user's code."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        found = format_error(error).removeprefix("Traceback (most recent call last):\n")
        return f"its module cannot be imported:\n{found}Correct the module, then try again"
    parent, _, name = error.name.rpartition(".")
    prefix = f"{parent}." if parent else ""
    near = _list("; try", (prefix + other for other in _find_near(name, _list_modules(parent), 0.8)))
    if frames := traceback.extract_tb(find_user_trace(error)):
        file, line = Path(frames[-1].filename), frames[-1].lineno
        shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
        lack = f"which {parent} lacks" if parent in sys.modules else "which is not installed"
        remedy = near or f"; {'correct this line' if parent in sys.modules else 'install it'}, then try again"
        return f"{shown} imports {error.name}, {lack} (line {line}){remedy}"
    if parent in sys.modules and not hasattr(sys.modules[parent], "__path__"):
        return f"{parent} is a module and no package; give the function as {parent}:FUNCTION"
    if Path(error.name).is_file():
        return _WRONG_FILE
    if name in _EXTRAS and not parent:
        return f"{name} is not installed; run pip install 'photometry_tasks[{_EXTRAS[name]}]'"
    remedy = "; give a module that is installed or in the current directory, or the path of a file"
    return f"there is no module {error.name}{near or remedy}"


def _describe_lack(module: ModuleType, place: str, attribute: str) -> str:
    """Return which functions a module has in place of one that it lacks."""
    values = vars(module)
    names = [name for name, value in values.items() if callable(value) and not name.startswith("_")]
    own = [name for name in names if getattr(values[name], "__module__", None) == module.__name__]
    lazy = {*dir(module)} - values.keys()
    near = next(filter(None, (_find_near(attribute, known) for known in (own, names, lazy))), [])
    if hasattr(module, "__path__") and not own and not near:
        inner = (f"{place}.{name}:{attribute}" for name in _list_modules(module.__name__))
        fault = f"{place} is a package without a function {attribute}"
        return f"{fault}; give it with its module{_list(', for example', inner)}"
    if attribute in values:
        fault = f"{attribute} is not a function, but a value of type {type(values[attribute]).__name__}"
    else:
        fault = f"{place} has no function {attribute}"
    return f"{fault}{_list('; try', near) or _list('; choose from', own) or '; give a function'}"


def _list_modules(package: str) -> list[str]:
    """Return the names of the modules in a package, or of all modules outside of packages."""
    import pkgutil

    path = getattr(sys.modules.get(package), "__path__", []) if package else None
    found = (module.name for module in pkgutil.iter_modules(path))
    return [*(() if package else sys.stdlib_module_names), *filter(str.isidentifier, found)]


def _find_near(name: str, names: Iterable[str], likeness: float = 0.6) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(name, sorted(set(names)), n=2, cutoff=likeness)


def _list(words: str, names: Iterable[str]) -> str:
    """Return words and the first names, or nothing if there are no names."""
    first = list_first(names, _MOST_NAMES)
    return f"{words} {first}" if first else ""


# --- the check, and the way to the workers ---------------------------------------------------------------


def check_function(
    function: PhotometryFunction, *, argument: str = "function", value: str | None = None
) -> PhotometryFunction:
    """Return a function that can be called with a task and returns a result, as far as this can be checked.

    Parameters
    ----------
    function : callable
    argument, value : str, optional
        How the user gave it.

    Raises
    ------
    InvalidArgumentError
    """
    refuse = partial(InvalidArgumentError, argument=argument, value=value or _show(function))
    if not callable(function):
        raise refuse(remedy="a function is expected; import it, and give the function itself")
    if isinstance(function, type) and not issubclass(function, Mapping):
        remedy = "a class returns an instance and no result; give a function, or an instance with a method __call__"
        raise refuse(remedy=remedy)
    if any(is_other(part) for is_other in _NOT_PLAIN for part in (function, type(function).__call__)):
        raise refuse(remedy="it is async or a generator; give a function that returns a dict")
    try:
        # Not that of a wrapped function: its wrapper may add arguments.
        inspect.signature(function, follow_wrapped=False).bind({})
    except ValueError:
        pass  # compiled code need not have a signature
    except TypeError as error:
        remedy = f"it cannot be called with a task alone ({error}); give a function with one argument, the task"
        raise refuse(remedy=remedy) from error
    return function


def _show(function: object) -> str:
    """Return the name of a function for messages: its address would say nothing."""
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if isinstance(name, str) else show(function)


def make_portable(function: PhotometryFunction) -> PhotometryFunction:
    """Return a function that pickle can send to workers, if need be with its code.

    Raises
    ------
    InvalidArgumentError
    """
    try:
        if b"__main__" not in pickle.dumps(function) or not _is_interactive():
            return function
    except Exception:  # noqa: S110 - of any class; cloudpickle can send more
        pass
    refuse = partial(InvalidArgumentError, argument="function", value=_show(function))
    remedy = "define it at the top level of a module"
    try:
        import cloudpickle
    except ImportError:
        found = f"workers cannot import it; run pip install 'photometry_tasks[notebook]', or {remedy}"
        raise refuse(remedy=found) from None
    try:
        pickled = cloudpickle.dumps(function)
    except Exception as error:
        found = "workers cannot import it, and it cannot be sent to them"
        if (name := _find_unsendable(function, cloudpickle.dumps)) is not None:
            found, remedy = f"its variable {name} cannot be sent to workers", "create it in the function"
        found = f"{found} ({describe_error(error)}); {remedy}"
        raise refuse(remedy=found) from error
    if len(pickled) > _LARGE:
        message = "%s and its data have %.0f MB, which each task sends to a worker; read large data in the function"
        _logger.warning(message, _show(function), len(pickled) / 1e6)
    return PortableFunction(function, _unpickle, pickled)


def _find_unsendable(function: PhotometryFunction, send: Callable[[Any], bytes]) -> str | None:
    """Return the name of a variable from outside of the function that cannot be sent, or None."""
    try:
        outside = inspect.getclosurevars(function)
    except (TypeError, ValueError):  # it is an instance, or compiled
        return None
    for name, value in {**outside.globals, **outside.nonlocals}.items():
        try:
            send(value)
        except Exception:
            return name
    return None


def _is_interactive() -> bool:
    """Whether workers cannot import `__main__`: it is a notebook or a prompt."""
    return not hasattr(sys.modules["__main__"], "__file__") or hasattr(sys, "ps1")


@functools.lru_cache(maxsize=1)  # once in a worker, which is sent the function with each task
def _unpickle(pickled: bytes) -> PhotometryFunction:
    return PortableFunction(pickle.loads(pickled), _unpickle, pickled)  # noqa: S301 - from the manager
