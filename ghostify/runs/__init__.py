"""Runs of a comparison: what was asked for (suites), and what came of it (records)."""
