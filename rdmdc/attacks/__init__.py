"""Attacks on training data: one file each, and the crafting loop that they share (§2.3, §3)."""
