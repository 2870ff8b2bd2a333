"""The miniature: a drawn world, its held-out concepts, and the small Stable Diffusion trained on it."""
