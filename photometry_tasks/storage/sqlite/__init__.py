"""TODO-files: SQLite databases, each with one manager at a time."""
