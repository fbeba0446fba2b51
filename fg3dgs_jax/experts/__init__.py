"""Frozen pretrained networks and the registry of their weights."""
