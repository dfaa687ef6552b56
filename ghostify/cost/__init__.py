"""What a network costs: parameters and multiply-adds, in closed form and counted."""
