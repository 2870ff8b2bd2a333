"""Records, settings, trees, random streams and meshes: what every other part stands on."""
