"""`python -m photometry_tasks.cli`."""

from photometry_tasks.cli.main import main

# MPI ranks import this module without running the command.
if __name__ == "__main__":
    main()
