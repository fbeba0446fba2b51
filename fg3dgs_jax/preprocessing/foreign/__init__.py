"""Folders in the layout of AD-NeRF, ER-NeRF and TalkingGaussian."""
