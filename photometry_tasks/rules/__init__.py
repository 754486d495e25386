"""Pure rules: they use no session, no statement and no file."""
