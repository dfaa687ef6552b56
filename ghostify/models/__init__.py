"""Networks by name: the paper's own, torchvision's, timm's, and anybody's factory."""
