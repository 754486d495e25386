"""The command line."""

import sys

try:
    from photometry_tasks.cli.main import main
except KeyboardInterrupt:  # the imports take longer than many commands
    print("Interrupted.", file=sys.stderr)
    sys.exit(130)  # as `main` does

__all__ = ["main"]
