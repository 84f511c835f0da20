"""Benchmarks of this library against others on one machine: ``python -m benchmarks --help``."""
