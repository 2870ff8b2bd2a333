"""Measuring: prompt control, scores of concepts, forgetting, neuron statistics."""
