"""What users call: optimizers, functions, jitable, minimize, checkpoints, conventions, info."""
