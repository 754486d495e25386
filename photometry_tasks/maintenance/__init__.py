"""A whole list at once: its status, a check, a copy, the preview of a reset."""
