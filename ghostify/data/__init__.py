"""Images from disk: what they are, how a network wants them, and in which order they come."""
