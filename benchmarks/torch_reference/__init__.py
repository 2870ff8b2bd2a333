"""CNS in plain PyTorch, with diffusers and transformers: what cns_jax is timed against, and a check of its numbers.

Written to be fast, so that the comparison is honest: frozen weights take no gradients, views are cached moments,
attention is PyTorch's own, Adam is fused, the VAE's convolutions are channels-last; on a GPU the UNet's too, the
networks run under bfloat16 autocast, and the loss is compiled.
"""
