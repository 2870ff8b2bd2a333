"""Concept neurons: scoring, selecting, protecting and counting cross-attention K/V weights."""
