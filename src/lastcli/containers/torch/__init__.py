"""torch files: the archive, the models in it, reading and writing."""
