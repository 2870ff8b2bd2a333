"""Pre-training of the miniature: VAE, CLIP and UNet on the drawn world, and the judge that grades it."""
