"""aTENNuate's layers: real input and output maps around complex poles."""
