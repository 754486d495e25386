"""TODO-files: SQLite, with one manager at a time."""
