"""What the Snakefile imports: presets, methods, digests, resources and stages."""
