"""Expression channels: blendshapes, action units, emotion."""
