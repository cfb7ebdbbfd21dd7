"""
Which stage of the network, and how many images?
================================================

A network has early stages, which respond to edges and textures, and late ones, which respond to parts of objects. Which
stage suits depends on the images. This example measures it on four kinds of images, and then asks for one of them if
more images would help.
"""

# %%
# Four kinds of images
# --------------------
# 160 images of each kind: photos of clothes, photos of hands, solar cells, and wallpaper patterns.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from _gallery import load_photos
from sktransfer.datasets import load_elpv, make_wallpaper_groups


def some(data, n=160):
    """Draw n images with their labels, as many of each class as its share."""
    return train_test_split(data.data, data.target, train_size=n, stratify=data.target, random_state=0)[::2]


clothes = load_photos("clothes", "train")
kinds = {
    "clothes": (clothes.data, clothes.target),
    "hand signs": some(load_photos("hand_signs", "train")),
    "solar cells": some(load_elpv()),
    "wallpaper": some(make_wallpaper_groups(12, random_state=0)),
}
for kind, (_, y) in kinds.items():
    print(f"{kind}: {len(y)} images, {len(np.unique(y))} classes")

# %%
# Every stage
# -----------
# :func:`~sktransfer.rank_backbones` cross-validates a linear model on the features of each layer. The network runs once
# for all stages. It takes ``backbones=[…]`` too, with names of :func:`~sktransfer.list_backbones`; their weights have
# to be downloaded, so we stay with the network that comes with the package. To compare the kinds, we scale the
# accuracy: 0 is always the largest class, 1 is perfect.

from sktransfer import rank_backbones

stages = [f"stage{k}" for k in range(1, 9)]
figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
for kind, (X, y) in kinds.items():
    ranking = {row.layer: row for row in rank_backbones(X, y, layers=[*stages, "all"], cv=4, image_size=160)}
    chance = np.bincount(y).max() / len(y)
    skill = {layer: (row.score - chance) / (1 - chance) for layer, row in ranking.items()}
    (line,) = ax.plot(range(1, 9), [skill[stage] for stage in stages], "o-", label=kind)
    ax.plot(9, skill["all"], "D", color=line.get_color())
    best = max(stages, key=skill.get)
    print(f"{kind:12} best stage: {best} {skill[best]:.2f}, last: {skill['stage8']:.2f}, all: {skill['all']:.2f}")
ax.set_xticks([*range(1, 9), 9], [*map(str, range(1, 9)), "all"])
ax.set(xlabel="stage", ylabel="skill of a linear model", title="What each stage knows of four kinds of images")
ax.legend(fontsize=9)

# %%
# Would more images help?
# -----------------------
# scikit-learn's ``LearningCurveDisplay`` fits a model to growing parts of the images. We look at the solar cells, with
# the stage that :func:`~sktransfer.make_feature_classifier` chooses for itself.

from sklearn.model_selection import LearningCurveDisplay, StratifiedKFold

from sktransfer import make_feature_classifier

X, y = some(load_elpv(), 480)
display = LearningCurveDisplay.from_estimator(
    make_feature_classifier(image_size=160, cv=3),
    X,
    y,
    train_sizes=[40, 80, 160, 320],
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
    score_type="test",
    score_name="accuracy",
)
display.figure_.set_size_inches(6, 3.4)
display.figure_.set_layout_engine("constrained")
display.ax_.axhline(1 - y.mean(), color="grey", linestyle=":", label="always functional")
display.ax_.set(xscale="log", title="Solar cells: accuracy over the number of images")
display.ax_.set_xticks([40, 80, 160, 320], ["40", "80", "160", "320"])
display.ax_.set_xticks([], minor=True)
display.ax_.legend()
for n, scores in zip(display.train_sizes, display.test_scores, strict=True):
    print(f"{n:3} images: {scores.mean():.3f} ± {scores.std():.3f}")

# %%
# What to take from it
# --------------------
# No stage is the best for all kinds of images. The late stages lead on clothes, hands and solar cells. On wallpaper
# patterns, which contain no objects, the stages after the fifth add nothing. The first four stages are far behind on
# clothes, which are known by the shape of the whole. With 160 images, neighbouring stages often differ by chance, and
# all stages together are never far behind the best one. This is why :func:`~sktransfer.make_feature_classifier` chooses
# how many of the last stages it uses.
#
# More solar cells would help: each doubling of their number adds about two points, and the curve still rises at its
# end.
