"""Networks that look at sound: one row of features a frame."""
