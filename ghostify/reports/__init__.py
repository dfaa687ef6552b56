"""Comparison reports: run records and published figures to tables, figures and pages."""
