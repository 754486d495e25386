"""The databases that hold TODO-lists: SQLite files and PostgreSQL servers."""
