"""Time and memory, ours beside PyTorch's."""
