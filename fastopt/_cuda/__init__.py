"""Arrays on a GPU: recognised, planned, updated. Loaded when the first one comes."""
