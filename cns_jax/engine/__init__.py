"""Training: the step, one concept, concept after concept, checkpoints and what the user sees meanwhile."""
