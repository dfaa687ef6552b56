"""Scores of plans: without training, after a short distillation, after a whole recipe."""
