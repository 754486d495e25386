"""The installed command."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("photometry-tasks"))

#: The fixture `call`: it runs the command in an empty directory.
Call = Callable[..., subprocess.CompletedProcess[str]]
