"""`python -m photometry_tasks.cli`."""

from photometry_tasks.cli.main import main

main()
