"""What a network's feature maps have in common: how redundant they are, and pictures of them."""
