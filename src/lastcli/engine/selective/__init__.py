"""Selective layers: step, B and C depend on the input (Mamba). No name and no file is known here."""
