"""Data sets as class-sorted arrays, targets, and the embedded data."""
