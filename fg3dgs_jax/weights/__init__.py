"""Finds, fetches, verifies and reads files of pretrained weights. Knows no network."""
