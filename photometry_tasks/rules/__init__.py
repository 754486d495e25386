"""Pure rules: no session, no statement, no file."""
