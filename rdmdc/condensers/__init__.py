"""Condensers: training images become a few synthetic ones per class; one file each."""
