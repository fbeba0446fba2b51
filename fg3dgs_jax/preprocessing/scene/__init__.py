"""Which frames show the person in the scene of the clip."""
