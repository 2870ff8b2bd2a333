"""What protection gives, beside CNS."""
