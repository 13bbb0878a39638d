"""Screens: which training images look poisoned and are left out before condensation; one file each."""
