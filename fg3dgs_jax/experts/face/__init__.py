"""Networks that look at faces: landmarks, labels, expressions."""
