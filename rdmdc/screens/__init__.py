"""Screens: which images look poisoned and are left out before condensation."""
