"""`python -m photometry_tasks`, which is the program `photometry-tasks`."""

from photometry_tasks.cli.__main__ import main

if __name__ == "__main__":
    main()
