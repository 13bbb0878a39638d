"""Train a plain torch network on a condensed set; nothing of this package is needed for it."""

import torch

import rdmdc

train, test = rdmdc.load_dataset("emoji", per_class=(100, 30), size=16)
small = rdmdc.condense(train, ipc=5, method="dm", iterations=30)

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Flatten(),
    torch.nn.Linear(small.inputs[0].numel(), 64),
    torch.nn.ReLU(),
    torch.nn.Linear(64, len(small.class_names)),
)
optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
for _ in range(100):
    optimiser.zero_grad()
    torch.nn.functional.cross_entropy(model(small.inputs), small.labels).backward()
    optimiser.step()

inputs = test.normalisation.normalise(test.pixels)
accuracy = (model(inputs).argmax(1) == test.labels).float().mean()
print(f"{len(small.labels)} synthetic images, accuracy {accuracy:.2f}")
