"""A handler of Ctrl-C for the runs that the tests start."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _ctrl_c_is_not_ignored() -> Iterator[None]:
    """Restore Python's handler of Ctrl-C: programs in the background of a shell ignore it, and so do their children."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)
