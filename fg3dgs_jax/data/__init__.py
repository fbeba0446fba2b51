"""Video -> processed folder -> batch. Knows files and NumPy; knows no model and no loss."""
