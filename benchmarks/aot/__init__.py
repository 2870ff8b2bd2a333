"""Programs compiled ahead of time by the TPU compiler."""
