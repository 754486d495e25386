"""TODO-lists on a PostgreSQL server, which many managers share."""
