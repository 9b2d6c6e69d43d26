"""Small Mamba models trained here and reduced by every method; see `python -m benchmarks.mamba --help`."""
