"""The English of messages, as far as a test can hold it: codespell and a reader's eye do the rest."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from photometry_tasks import errors
from photometry_tasks.text import count_of, list_first
from tests.support.paths import ROOT

#: Words that stand in the place of the thing itself, or of the trade's own word.
PRO_FORMS = re.compile(
    r"\b(whoever|whatever is|somebody|nobody|lies beside|is at it|of its own accord|cut short|went wrong|sign of life"
    r"|give a sign|and told|those who|one who|fall silent|falls silent)\b",
    re.IGNORECASE,
)

#: A remedy begins with one of these.
REMEDIES = re.compile(
    r"\b(add|ask|call|check|choose|close|commit|copy|correct|create|delete|free|get|give|install|leave|mount|move|open"
    r"|read|remove|repair|rescue|roll|run|save|start|stop|try|upgrade|use|wait|write)\b",
    re.IGNORECASE,
)

#: Their remedy is part of the value in braces.
WITH_REMEDY_FROM_THE_CALLER = {"InvalidResultError", "WorkerError", "WorkerDiedError"}


def find_errors(base: type[Exception]) -> Iterator[type[Exception]]:
    for error in base.__subclasses__():
        yield error
        yield from find_errors(error)


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings and comments of a Python file, or the lines of any other."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), start=1)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for number, line in enumerate(text.splitlines(), start=1):
        _, mark, comment = line.partition("# ")
        if mark:
            yield number, comment


PLACES = [
    *sorted((ROOT / "photometry_tasks").rglob("*.py")),
    *sorted((ROOT / "migrations").rglob("*.py")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "README.md",
]


@pytest.mark.parametrize("path", PLACES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_pro_forms(path: Path) -> None:
    """A text names the manager, the program or the file that it speaks of."""
    found = [f"{number}: {match[0]}" for number, text in texts_of(path) if (match := PRO_FORMS.search(text))]
    assert not found


@pytest.mark.parametrize("error", list(find_errors(errors.TodoError)), ids=lambda error: error.__name__)
def test_an_error_names_the_thing_the_fault_and_the_remedy(error: type[Exception]) -> None:
    """A message begins with the argument, file or task, and ends with a remedy."""
    message = " ".join((error.__doc__ or "").split())
    first, _, rest = message.partition(". ")
    assert "{" in first, "it names no thing"
    has_remedy = "{remedy}" in message or REMEDIES.search(rest or first)
    assert has_remedy or error.__name__ in WITH_REMEDY_FROM_THE_CALLER, "it gives no remedy"
    assert message.endswith((".", "…"))


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(0, "task", "0 tasks"), (1, "task", "1 task"), (2, "result", "2 results"), (12_345, "row", "12,345 rows")],
)
def test_plurals(number: int, noun: str, text: str) -> None:
    """A noun agrees with its number."""
    assert count_of(number, noun) == text


def test_no_plural_by_hand() -> None:
    """No message puts a number in front of a plural noun: `count_of` does it."""
    by_hand = re.compile(r"\{[^{}]+\} (tasks|results|errors|rows|skips|faults|targets)\b(?! per |\.\w)")
    for path in sorted((ROOT / "photometry_tasks").rglob("*.py")):
        if path.name in ("errors.py", "text.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                assert not by_hand.search(ast.unparse(node)), f"{path}:{node.lineno}"


@pytest.mark.parametrize(("items", "text"), [([], ""), ([1], "1"), ([1, 2, 3], "1, 2, 3"), (range(9), "0, 1, 2, …")])
def test_a_long_list_is_cut(items: list[int], text: str) -> None:
    """Of a long list the first items are named."""
    assert list_first(items, 3) == text
