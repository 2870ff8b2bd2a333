"""From prompts to token ids: CLIP's byte-level BPE, its training, and the rows reserved for concepts."""
