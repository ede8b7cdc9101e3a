# ---
# jupyter:
#   jupytext: {formats: "ipynb,py:percent"}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # First counterfactuals
#
# A plan draws images from three mechanisms, each with a label of its own: shape, texture and background. This notebook looks
# at them, changes one label at a time, and walks between two images. It needs `pip install 'cgnrt[cpu]'` and a plan;
# `cgnrt example` writes the one used here.

# %%
import numpy as np
from PIL import Image

import cgnrt
from cgnrt.sheets import contact_sheet

gen = cgnrt.Generator("plans/double-colored.plan", dtype="uint8", layout="NHWC")
print(gen)
print(gen.classes["background"])

# %% [markdown]
# ## What the mechanisms draw
#
# The mask, the foreground, the background, and what the composer makes of them (Eq. 2 of the paper). Labels are drawn
# independently: these are counterfactuals.

# %%
batch = gen.sample(9, seed=3, parts=True)
contact_sheet(batch, gen.classes)

# %% [markdown]
# ## One cause at a time
#
# Interventions keep all else: the same noise, the same other labels. Each row below sets one mechanism's label to 0 to 9.


# %%
def strip(images: np.ndarray, scale: int = 2) -> Image.Image:
    """Images side by side."""
    row = Image.fromarray(np.concatenate(list(images), axis=1))
    return row.resize((row.width * scale, row.height * scale), Image.Resampling.NEAREST)


one = gen.sample(1, seed=5, distinct=True)  # not a texture on the background of its own class
ten = np.arange(10)
rows = []
for mechanism in ("shape", "texture", "background"):
    labels = {name: np.full(10, int(value[0])) for name, value in one.labels._asdict().items()}
    labels[mechanism] = ten
    noise = type(one.noise)(*(np.repeat(values, 10, axis=0) for values in one.noise))
    rows.append(np.asarray(strip(gen(**labels, noise=noise).images)))
Image.fromarray(np.concatenate(rows, axis=0))

# %% [markdown]
# ## Between two images
#
# Noise and class embeddings of a mechanism can be blended (App. D.2): here of the shape alone.

# %%
strip(gen.interpolate(12, mechanisms="shape", seed=3).images)

# %% [markdown]
# ## How fast
#
# A pool uses the networks' outputs several times, in new combinations.

# %%
import time

for options in ({}, {"pool": 64}):
    gen.sample(64, seed=0, **options)  # the pool is made here
    begin = time.perf_counter()
    gen.sample(2_000, seed=0, **options)
    print(options, f"{2_000 / (time.perf_counter() - begin):,.0f} images/s")
