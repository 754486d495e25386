"""How far a list has come: the summary, the throughput, the overview."""
