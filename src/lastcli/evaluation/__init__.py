"""Held-out splits, metrics, forward passes over them, and timings."""
