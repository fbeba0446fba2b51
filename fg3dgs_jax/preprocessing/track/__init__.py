"""Head pose and camera from landmarks and pixels."""
