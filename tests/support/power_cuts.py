"""The states in which a power cut may leave a directory, from the system calls of a program."""

import itertools
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

#: The calls that change files, and those that write them to disk.
_CALLS = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink,unlinkat"

_CALL = re.compile(r"\d+ +(\w+)\((.*)\) += \d.*")

#: The content of each file of a directory, by name.
State = dict[str, bytes]


def record(command: Sequence[str], trace: Path) -> list[tuple[str, list[bytes], str]]:
    """Run a command, and return its calls: the name, the paths and texts, and the flags and numbers."""
    # All texts as hexadecimal numbers, and the path of each descriptor.
    strace = ["strace", "-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={_CALLS}", "-o", str(trace)]
    subprocess.run([*strace, *command], check=True, stdout=subprocess.PIPE)
    calls = []
    for match in map(_CALL.fullmatch, trace.read_text().splitlines()):
        if match is not None:
            given = re.sub(r"AT_FDCWD<[^>]*>, ", "", match[2])
            texts = re.findall(r'(?:<|")((?:\\x..)*)[>"]', given)
            calls.append((match[1], [bytes.fromhex(text.replace("\\x", "")) for text in texts], given))
    return calls


class _File:
    """A file: what is on the disk, and the later changes (an offset with bytes, or a size) that may be."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content
        self.changes: list[tuple[int, bytes | None]] = []

    def read(self, left_out: int | None = None, end: int | None = None) -> bytes:
        """Return the content after all changes before `end`, without one of them."""
        content = bytearray(self.content)
        for number, (place, data) in enumerate(self.changes[:end]):
            if number == left_out:
                continue
            if data is None:
                content[place:] = bytes(max(0, place - len(content)))
            else:
                content.extend(bytes(max(0, place - len(content))))
                content[place : place + len(data)] = data
        return bytes(content)


class Directory:
    """A directory: the names on the disk, and later changes (a name with its new file, or None) that may be."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._names = {other.name: _File(other.read_bytes()) for other in path.iterdir()}
        self._changes: list[list[tuple[str, _File | None]]] = []

    def apply(self, name: str, texts: list[bytes], given: str) -> None:
        """Apply a call, if it concerns a file of the directory."""
        paths = [text.decode(errors="replace") for text in texts if text.startswith(b"/")]
        if not paths or (paths[0] != self._path and not paths[0].startswith(f"{self._path}/")):
            return
        found = self._find(range(len(self._changes)))
        target = paths[0].removeprefix(f"{self._path}/")
        file = found.get(target)
        match name:
            case "fsync" | "fdatasync" if paths[0] == self._path:
                self._names, self._changes = found, []
            case "openat" if "O_CREAT" in given and file is None:
                self._changes.append([(target, _File())])
            case "rename":
                self._changes.append([(target, None), (paths[1].removeprefix(f"{self._path}/"), file)])
            case "unlink" | "unlinkat":
                self._changes.append([(target, None)])
            case _ if file is None:
                pass  # the file has no name any more
            case "fsync" | "fdatasync":
                file.content, file.changes = file.read(), []
            case "ftruncate":
                file.changes.append((int(given.rpartition(", ")[2]), None))
            case "pwrite64":
                file.changes.append((int(given.rpartition(", ")[2]), texts[1]))
            case "write":
                file.changes.append((len(file.read()), texts[1]))

    def _find(self, chosen: Sequence[int]) -> dict[str, _File]:
        found = dict(self._names)
        for number in chosen:
            for name, file in self._changes[number]:
                if file is None:
                    found.pop(name, None)
                else:
                    found[name] = file
        return found

    def iter_states(self) -> Iterator[State]:
        """Yield states after a power cut: any changes of names, and all, none, or all but one of the written bytes."""
        every = range(len(self._changes))
        some = itertools.chain.from_iterable(itertools.combinations(every, size) for size in range(len(every) + 1))
        for chosen in some if len(every) <= 6 else [every, [], *([n] for n in every), *(every[:n] for n in every)]:
            found = self._find(chosen)
            yield {name: file.read() for name, file in found.items()}
            yield {name: file.content for name, file in found.items()}
        found = self._find(every)
        complete = {name: file.read() for name, file in found.items()}
        for name, file in found.items():
            for number in range(len(file.changes)):
                yield {**complete, name: file.read(left_out=number)}
                yield {**complete, name: file.read(end=number)}
