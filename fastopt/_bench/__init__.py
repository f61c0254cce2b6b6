"""``fastopt bench``: Adam beside its baselines, on the same numbers, in turn."""
