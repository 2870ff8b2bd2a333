"""What concerns the compiler: programs, platforms, counted operations."""
