"""Models with names and axes of their own, read as one of the known families by a map in their description."""
