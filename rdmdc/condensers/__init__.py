"""Condensers: training images to a few synthetic images per class; one file each."""
