"""Modules that replace convolutions."""
