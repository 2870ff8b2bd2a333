"""What a run knows, its folder, and its way out: exports and patches."""
