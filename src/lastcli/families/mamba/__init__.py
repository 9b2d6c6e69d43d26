"""Mamba 1 and Mamba 2: selective layers, and the models they are usually found in."""
