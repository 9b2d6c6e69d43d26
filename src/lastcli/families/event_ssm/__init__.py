"""Event-SSM: S5 layers over event streams."""
