"""Is this clip good enough? What is found before the work begins."""
