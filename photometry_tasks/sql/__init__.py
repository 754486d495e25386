"""Statements, and what runs them on any connection."""
