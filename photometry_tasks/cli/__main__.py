"""The program `photometry-tasks`, which is also `python -m photometry_tasks.cli`.

Each worker process and each MPI rank imports this module without running it: it imports only what it must.
"""

import sys


def main() -> None:
    """Run a command."""
    try:
        from photometry_tasks.cli.main import main as run_command
    except KeyboardInterrupt:  # also while the modules are imported
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)  # as `run_command` does
    run_command()


if __name__ == "__main__":
    main()
