"""A checkpoint as a model: the open file, the description of what tensors cannot say, the flax module."""
