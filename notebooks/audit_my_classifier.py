# ---
# jupyter:
#   jupytext: {formats: "ipynb,py:percent"}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Audit my classifier
#
# `cgnrt.audit` asks a classifier about images whose causes are known, and counts what its answers follow. It takes a torch module, or
# any function from images to labels or logits. The function here looks at the colour in the corners, which is the background;
# put yours in its place.

# %%
import numpy as np

import cgnrt

gen = cgnrt.Generator("plans/double-colored.plan")
# The colour of each background's corners, from a few images of each class.
palette = np.stack(
    [gen.sample(32, seed=0, do={"background": k}).images[:, :, :3, :3].mean((0, 2, 3)) for k in range(10)]
)


def classifier(images: np.ndarray) -> np.ndarray:
    """From images (n, 3, 32, 32) in [-1, 1] to labels (n,)."""
    corner = images[:, :, :3, :3].mean((2, 3))
    return np.linalg.norm(corner[:, None] - palette, axis=2).argmin(1)


found = cgnrt.audit(classifier, gen, n=1_000)
print(found)

# %% [markdown]
# ## How to read it
#
# - `answer follows it` compares the answer with the label of each mechanism. Labels meet by chance, so compare with that line.
# - `changes with it alone` replaces one label and keeps all else. It has no such floor: 0 means that the mechanism alone never moves
#   the answer.
# - High accuracy where all labels agree, beside a low line for the shape, is a shortcut.

# %%
background = found.follows.background
print(f"{background.value:.3f} in [{background.low:.3f}, {background.high:.3f}]")
assert found.follows.background.low > 0.5 > found.follows.shape.high

# %% [markdown]
# The same from the command line, for a function in a file: `cgnrt audit plans/double-colored.plan my_module:classify -o audit.json`.
