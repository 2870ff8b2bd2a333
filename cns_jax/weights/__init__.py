"""Weights in and out: diffusers folders, CLIP folders, and the mapping of leaves to file keys."""
