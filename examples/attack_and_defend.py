"""Poison a class, condense with and without a screen, and see what networks make of the target."""

import rdmdc

train, test = rdmdc.load_dataset("emoji", per_class=(100, 30), size=16)
target = rdmdc.target(test, seed=50)
poisons = rdmdc.attack(train, target, eps=112, iterations=20)
poisoned = poisons.apply(train)

for method in ("dm", "rdm_dc", "screened_dm"):
    small = rdmdc.condense(poisoned, ipc=2, method=method, iterations=20)
    scores = rdmdc.evaluate(small, test, [target], networks=1, epochs=20)
    fooled = (scores["predicted_label"] == scores["adversarial_label"]).mean()
    print(f"{method}: accuracy {scores['accuracy'].mean():.2f}, fooled {fooled:.0%}")
