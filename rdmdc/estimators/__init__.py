"""Estimators: robust means of a set of vectors per class; one file each (§4.3, §4.5)."""
