"""The annotated S4: S4D, DSS and S4 layers in flax."""
