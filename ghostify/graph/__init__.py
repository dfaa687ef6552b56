"""From a network to its convolutions, and from a plan to the converted network."""
