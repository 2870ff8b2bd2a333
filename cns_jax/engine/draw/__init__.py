"""A loaded model and the pictures that it draws."""
