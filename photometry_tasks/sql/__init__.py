"""SQL statements, and their execution on any connection."""
