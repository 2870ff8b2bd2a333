"""Parity with PyTorch at full size."""
