"""Training: recipes, losses, one loop for train and finetune, checkpoints."""
