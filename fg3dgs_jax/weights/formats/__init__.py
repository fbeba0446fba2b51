"""Readers of the file formats that published weights come in."""
