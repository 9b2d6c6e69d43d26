"""One run on many devices and processes: which devices it uses, and what its processes tell each other."""
