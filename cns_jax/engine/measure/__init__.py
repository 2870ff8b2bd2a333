"""What was learned and what was forgotten, and where it lies in the model."""
