"""FG-3DGS in JAX: talking heads from three sets of 3D Gaussians (face, eyes, mouth)."""

__version__ = "0.1.0"
