"""Concept Neuron Selection: one Stable Diffusion model that keeps learning new concepts."""

__version__ = "0.1.0"
