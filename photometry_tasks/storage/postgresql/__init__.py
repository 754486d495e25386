"""Lists on a PostgreSQL server, which many managers share."""
