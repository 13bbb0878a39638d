"""Sources of labelled images: one file each."""
