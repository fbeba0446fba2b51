"""Label maps, plate and torso."""
