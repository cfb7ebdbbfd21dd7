"""
An image and a table in one model
=================================

Often there is more than the image: the age of a patient, the type of a part, the light in the room. In scikit-learn, a
``ColumnTransformer`` sends each column of a table to its own transformer. One column may hold the paths of images. Does
the rest of the table help here?
"""

# %%
# A table of solar cells
# ----------------------
# Each row is a cell of :func:`~sktransfer.datasets.load_elpv`: its photo, the type of its module, and two numbers that
# a simple sensor could measure, the mean brightness of the photo and its standard deviation.

# sphinx_gallery_thumbnail_number = 1
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.model_selection import train_test_split

from sktransfer.datasets import load_elpv

cells = load_elpv()
rows, _ = train_test_split(np.arange(len(cells.data)), train_size=600, stratify=cells.target, random_state=0)
pixels = [np.asarray(Image.open(path)) for path in cells.data[rows]]
table = pd.DataFrame(
    {
        "photo": cells.data[rows],
        "type": cells.module_type[rows],
        "brightness": [values.mean() for values in pixels],
        "contrast": [values.std() for values in pixels],
    }
)
y = cells.target[rows]
print(table.drop(columns="photo").assign(defective=y).groupby("type").mean().round(2))

figure, axes = plt.subplots(1, 5, figsize=(9, 2.4), layout="constrained")
for ax, row, cell in zip(axes, table.itertuples(), pixels, strict=False):
    ax.imshow(cell, cmap="gray", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{row.type}, brightness {row.brightness:.0f}\ncontrast {row.contrast:.0f}", fontsize=9)
figure.suptitle("Cells and what the table says of them")

# %%
# One pipeline
# ------------
# The photo goes through :class:`~sktransfer.PretrainedCNNFeatures` and a scaler, the type becomes two columns, and the
# numbers are scaled. A column name in quotes, not in a list, passes the column on as a list of paths.

from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sktransfer import PretrainedCNNFeatures

photo = ("photo", make_pipeline(PretrainedCNNFeatures(image_size=160), StandardScaler()), "photo")
kind = ("type", OneHotEncoder(), ["type"])
numbers = ("numbers", StandardScaler(), ["brightness", "contrast"])


def model(*columns, C):
    """Return a logistic regression on some columns of the table."""
    return make_pipeline(ColumnTransformer(list(columns)), LogisticRegression(C=C, max_iter=1000))


models = {
    "table alone": model(kind, numbers, C=1.0),
    "photo alone": model(photo, C=0.003),
    "photo and table": model(photo, kind, numbers, C=0.003),
}
models["photo and table"]

# %%
# The same folds for all
# ----------------------
# We look at the area under the ROC curve in five-fold cross-validation, three times with other folds. The network sees
# each photo once.

from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score

cv = RepeatedStratifiedKFold(n_splits=5, n_repeats=3, random_state=0)
scores = {name: cross_val_score(each, table, y, cv=cv, scoring="roc_auc") for name, each in models.items()}
for name, values in scores.items():
    print(f"{name:16} AUC {values.mean():.3f} ± {values.std():.3f}")
gain = scores["photo and table"] - scores["photo alone"]
print(f"gain by the table: {gain.mean():+.4f}, better on {np.sum(gain > 0)} of {len(gain)} folds")

figure, ax = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
for height, values in enumerate(scores.values()):
    ax.plot(values, [height] * len(values), "o", color=f"C{height}", alpha=0.4)
    ax.plot(values.mean(), height, "D", color=f"C{height}", markersize=9)
ax.set_yticks(range(len(scores)), list(scores))
ax.set(xlabel="AUC (◆ mean of 15 folds)", ylim=(2.5, -0.5), title="Defective solar cells: table, photo, both")
ax.grid(axis="y", alpha=0.3)

# %%
# What to take from it
# --------------------
# The table alone knows something: its AUC is 0.77. The photo alone has 0.86, and both together 0.87. The table helps on
# 12 of 15 folds, but by no more than 0.002 on average, which hardly matters. Brightness and contrast can be seen in the
# photo, so the network has most of what they say.
#
# In your task, a column may say what no image shows, such as the age of a part. Then the same pipeline shows by how
# much it helps.
