"""What is measured, as a ratio to something else in the same run."""
