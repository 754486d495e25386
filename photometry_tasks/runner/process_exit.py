"""Why a process died: the kind of its death, in words, its peak memory, and its limits of memory and CPU time."""

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")

#: The kind of a failure for which the kernel killed the process.
OUT_OF_MEMORY = "out of memory"

#: A control group of version 1 without a limit reports a number near the largest address.
_NO_LIMIT = 2**60


def describe_exit(exitcode: int | None, oom_kills: int | None = None) -> tuple[str, str]:
    """Return the kind of a process's unexpected end, and why it ended.

    Parameters
    ----------
    exitcode : int or None
        Negative: the number of the signal that killed it.
    oom_kills : int, optional
        The result of `count_oom_kills` before the process started.
    """
    if exitcode is None or exitcode >= 0:
        return f"exit {exitcode}", f"its process ended with exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = str(-exitcode)
    kind, text = f"signal {name}", f"its process was killed by {'' if name.startswith('SIG') else 'signal '}{name}"
    if name == "SIGKILL":
        was_oom = oom_kills is not None and count_oom_kills() != oom_kills
        text += f"{': out of memory' if was_oom else ', possibly out of memory'}; {describe_memory_limit()}"
        return OUT_OF_MEMORY if was_oom else kind, text
    if name == "SIGXCPU":
        text += ": its CPU time limit (RLIMIT_CPU) was reached"
    elif name in ("SIGSEGV", "SIGABRT", "SIGBUS"):
        text += f", possibly a fault in compiled code or a lack of memory; {describe_memory_limit()}"
    return kind, text


def get_peak_memory() -> int:
    """Return the largest resident memory of this process so far, bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe_memory_limit() -> str:
    """Return the memory limit of a process here, as far as it can be read: of its control groups, or RLIMIT_AS."""
    limits = [(limit, "control group") for limit in _read_numbers("memory.max", "memory.limit_in_bytes")]
    limits.append((resource.getrlimit(resource.RLIMIT_AS)[0], "RLIMIT_AS"))
    finite = [(limit, kind) for limit, kind in limits if 0 <= limit < _NO_LIMIT]
    if not finite:
        return "the only memory limit is the machine's"
    limit, kind = min(finite)
    return f"the memory limit is {limit / 1e6:.0f} MB ({kind})"


def count_oom_kills() -> int | None:
    """Return how many processes of this control group the kernel has killed for memory; None if it cannot be read."""
    for folder in _memory_groups():
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError, KeyError, ValueError):
                return int(dict(line.split() for line in (folder / name).read_text().splitlines())["oom_kill"])
    return None


def _read_numbers(*names: str) -> Iterator[int]:
    for folder in _memory_groups():
        for name in names:
            with suppress(OSError, ValueError):  # "max" means no limit
                yield int((folder / name).read_text())


def _memory_groups() -> Iterator[Path]:
    """Yield the control group of this process that counts memory, then its parent groups (cgroups(7))."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers in ("", "memory"):
                root = _CGROUPS / controllers
                group = root / name.lstrip("/")
                yield group
                yield from (parent for parent in group.parents if parent.is_relative_to(root))
