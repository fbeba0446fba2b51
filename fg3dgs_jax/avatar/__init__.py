"""The trained thing: drawing it (eq. 14), storing it, playing it."""
