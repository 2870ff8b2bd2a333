"""Measurements on real sizes. Each module is a command: python -m benchmarks.NAME."""
