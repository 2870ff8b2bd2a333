"""Noise schedules, samplers and guidance: three nouns that know nothing of each other's insides."""
