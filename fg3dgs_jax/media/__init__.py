"""Pictures and sound in and out, on one clock. Knows no face and no model."""
