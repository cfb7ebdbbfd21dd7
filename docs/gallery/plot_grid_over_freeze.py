"""
A grid over the depth of freezing, computed once
================================================

How many stages of the network should stay frozen, and how slowly should the others learn? A grid search answers that,
but it trains dozens of networks. What is frozen gives the same result each time. This example counts how much work is
saved because sktransfer computes it once.
"""

# %%
# The task
# --------
# We take the hand signs of nine persons. The folds keep all photos of a person together, so that the score is that for
# new persons.

from pathlib import Path

import numpy as np

from _gallery import load_photos

photos = load_photos("hand_signs", "train")
persons = np.array([Path(path).stem for path in photos.data])
rows = np.isin(persons, np.unique(persons)[:9])
X, y, groups = photos.data[rows], photos.target[rows], persons[rows]
print(f"{len(X)} photos of {len(np.unique(groups))} persons")

# %%
# The grid
# --------
# ``freeze`` says how many of the eight stages are frozen, and ``lr_factor`` how much slower than the head the other
# stages learn. The grid has 10 candidates, each on three folds. :func:`~sktransfer.cache_info` counts the images that
# had to pass through frozen stages. We train at 64 pixels for 4 epochs, so that this page is quick.

import time

from sklearn.model_selection import GridSearchCV, GroupKFold

from sktransfer import FineTunedCNNClassifier, cache_info, clear_cache

clear_cache()
clf = FineTunedCNNClassifier(image_size=64, max_epochs=4, random_state=0)
grid = {"freeze": [4, 5, 6, 7, "all"], "lr_factor": [0.1, 0.02]}
start = time.perf_counter()
search = GridSearchCV(clf, grid, cv=GroupKFold(3), refit=False, error_score="raise").fit(X, y, groups=groups)
first_seconds = time.perf_counter() - start
first = cache_info()

n_fits = len(search.cv_results_["params"]) * search.n_splits_
n_passes = n_fits * (4 * len(X) * 2 // 3 + len(X) // 3)  # each epoch, and the test images once
print(f"{n_fits} fits in {first_seconds:.0f} s")
print(f"passes of an image through frozen stages: {first.misses}; without a store: {n_passes}")

# %%
# There are five depths, so each photo passes through frozen stages five times: once for each depth. All folds, learning
# rates and epochs share these results.
#
# The result
# ----------
# :class:`~sktransfer.FreezeDepthDisplay` draws the score over the depth, with a line for each learning rate.

from sktransfer import FreezeDepthDisplay

display = FreezeDepthDisplay.from_search(search, by="lr_factor")
display.ax_.set_title("Accuracy for new persons over the frozen stages")
print(f"best: {search.best_params_}, {search.best_score_:.3f}")

# %%
# A second grid costs less
# ------------------------
# We want to know more about the head. The second grid freezes all stages, as a part of the first did, so nothing is
# computed anew before the cut.

start = time.perf_counter()
more = GridSearchCV(
    clf.set_params(freeze="all"), {"dropout": [0.0, 0.2, 0.5], "lr": [1e-3, 3e-3]}, cv=GroupKFold(3), refit=False
).fit(X, y, groups=groups)
second = cache_info()
print(f"{len(more.cv_results_['params']) * 3} fits in {time.perf_counter() - start:.1f} s")
print(f"new passes through frozen stages: {second.misses - first.misses}")
print(f"accuracy from {more.cv_results_['mean_test_score'].min():.3f} to {more.best_score_:.3f}")

# %%
# What to take from it
# --------------------
# The first grid trained 30 networks, and each photo passed through frozen stages five times. Without a store, these
# would be 18 times as many passes. The second grid trained 18 heads in a few seconds and computed nothing anew. So it
# costs little to search what stands behind the cut.
#
# With 60 photos to train on and four epochs, it is best to freeze all stages, with an accuracy of 0.60. The fewer
# stages are frozen, the worse it gets, and a low rate softens that. The bands of neighbouring depths overlap. With more
# photos and epochs the order may turn around, so search with the training that you will use.
