"""The sweeps: how a rule is carried over arrays, one module per target."""
