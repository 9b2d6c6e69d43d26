"""Linear Recurrent Units in their flax, equinox and torch spellings."""
