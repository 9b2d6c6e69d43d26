"""S5 in flax, and its port to PyTorch."""
