"""The queries of readers: the rows of tasks with their results, one star, the failures, the time left."""
