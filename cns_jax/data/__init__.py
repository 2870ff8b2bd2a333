"""From a folder of pictures to what a training step reads."""
