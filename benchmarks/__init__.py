"""Measurements: each is a ratio to another way to get the same result, in the same run."""
