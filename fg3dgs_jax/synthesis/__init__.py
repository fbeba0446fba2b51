"""New speech for a trained avatar."""
