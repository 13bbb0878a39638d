"""Artifacts on disk: saving, loading, provenance, checkpoints and verification."""
