"""Does the mouth follow the sound? The expert of eq. (16), mouth openings and their scores."""
