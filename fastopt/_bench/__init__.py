"""``fastopt bench``: Adam beside its rivals, on the same numbers, in turn."""
