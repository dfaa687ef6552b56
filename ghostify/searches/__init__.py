"""Where per-layer settings come from: search spaces."""
