"""orbax folders: the layout, the arrays through TensorStore, reading and writing."""
