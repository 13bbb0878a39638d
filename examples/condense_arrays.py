"""Condense arrays of images: four lines from a data set to a small synthetic one."""

import rdmdc

train, test = rdmdc.load_dataset("emoji", classes=["Symbols", "Objects"], size=16)
small = rdmdc.condense(train.pixels, train.labels, ipc=2, method="rdm_dc", iterations=20)
print(small.inputs.shape, small.labels.tolist())
