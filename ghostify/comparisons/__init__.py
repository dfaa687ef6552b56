"""Runs what a suite asks for: every method under one recipe, whatever dies in between."""
