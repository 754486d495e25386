"""The progress of a TODO-list: the summary, the throughput, the fields of `status --json`."""
