"""Protection of earlier concepts, and of everything else a model draws, in text-feature space.

A cross-attention key or value is linear in the text features, k = x W. The text encoder and the rows of learned tokens
are frozen, so the features of a prompt that asks for an earlier concept are known for ever: while x W stays as it was
for them, their pictures stay as they were. docs/protection.md derives what is done here.
"""
