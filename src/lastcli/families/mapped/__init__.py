"""Models with names and axes of their own, read as one of the known families by a map in their description."""

MAP_KEYS = ("layers", "names", "axes")
"""What a description says of a map, beside the family that it is a map of; `map.parse_map` reads them."""
