"""Removing output maps: the baselines that Ghost modules are compared with."""
