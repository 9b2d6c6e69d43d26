"""The models that the layers of the S4 repository are found in."""
