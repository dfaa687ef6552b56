"""The study: Optuna's samplers and storages, and the rules by which workers share a search.

Nothing outside this package imports Optuna.
"""
