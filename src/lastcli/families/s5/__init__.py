"""S5 in flax, and the layer that its descendants share."""
