"""Where TODO-lists are kept: SQLite files and PostgreSQL servers."""
