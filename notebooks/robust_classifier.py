# ---
# jupyter:
#   jupytext: {formats: "ipynb,py:percent"}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A robust classifier
#
# A classifier learns whatever tells the classes apart in its training set. Here digits always have the colour and the ground of
# their class, as in the paper's double-colored MNIST; what we want it to learn is the shape. So that the notebook needs no data,
# the biased training set is drawn by the plan, too, and so are the test images: the accuracies are those on the plan's images.
# With MNIST's own files `cgnrt-train table2` gives the paper's table (docs/results.md).

# %%
import torch
import torch.nn.functional as F
from torch import nn

import cgnrt

torch.manual_seed(0)
gen = cgnrt.Generator("plans/double-colored.plan")
biased = gen.sample(4_000, seed=1, labels="shared").torch()  # all three labels of an image agree
test = gen.sample(1_000, seed=2).torch()  # labels drawn independently: cues say nothing


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 5 * 5, 10),
    )


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    return float((model(test.images).argmax(1) == test.labels.shape).float().mean())


# %% [markdown]
# ## On the biased images alone


# %%
def train(model: nn.Module, batches) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def biased_batches(steps: int, size: int):
    for _ in range(steps):
        rows = torch.randint(len(biased.images), (size,))
        yield biased.images[rows], biased.labels.shape[rows]


plain = train(network(), biased_batches(200, 64))
print(f"accuracy where cues say nothing: {accuracy(plain):.2f}")

# %% [markdown]
# ## Half biased images, half counterfactuals
#
# The label of a counterfactual is its shape's (App. C.4 has half and half). The stream makes them while the model trains.


# %%
def mixed_batches(steps: int, size: int):
    with gen.stream(size // 2, seed=7, pool=512, refresh=16) as stream:
        for (images, labels), made in zip(biased_batches(steps, size // 2), stream, strict=False):
            made = made.torch()
            yield torch.cat([images, made.images]), torch.cat([labels, made.labels.shape])


robust = train(network(), mixed_batches(400, 64))
print(f"accuracy where cues say nothing: {accuracy(robust):.2f}")
assert accuracy(robust) > accuracy(plain) + 0.2

# %% [markdown]
# ## What each of them follows

# %%
for name, model in (("biased alone", plain), ("with counterfactuals", robust)):
    print(name)
    print(cgnrt.audit(model, gen, n=500))
