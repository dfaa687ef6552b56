"""How much accuracy Ghost networks and pruned networks regain, step by step."""
