"""Formulations of single operations, and kernels for GPUs."""
