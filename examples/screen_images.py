"""Which images of a training set look poisoned? Scores of a screen, the most suspicious first."""

import rdmdc

train, test = rdmdc.load_dataset("emoji", per_class=(60, 20), size=16)
poisons = rdmdc.attack(train, rdmdc.target(test, seed=51), by="direct", poisons=6)
screening = rdmdc.screen(poisons.apply(train), by="contrastive", drop="1/10", networks=4)

suspicious = screening.scores.argsort(descending=True)[:10].tolist()
truth = set(poisons.indices.tolist())
print("most suspicious:", suspicious)
print("of these poisons:", len(truth.intersection(suspicious)), "of", len(truth))
