"""s5-pytorch: S5 layers in PyTorch."""
