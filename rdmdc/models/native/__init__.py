"""Compiled kernels for the ConvNet on a CPU: an optional backend."""
