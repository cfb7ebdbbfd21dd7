"""
How many people must be photographed?
=====================================

A classifier of hand signs is of use only if it works for people that it has never seen. Is it better to ask two people
or twenty? This example trains on the hands of few and of many people, and tests on the hands of others.
"""

# %%
# Ten signs
# ---------
# The photos show the digits 0 to 9 in Turkish sign language (Apache-2.0). Each file is named after a person. 25 persons
# are there to train on and 15 others to test on, and each of them shows every sign once.

# sphinx_gallery_thumbnail_number = 2
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from _gallery import load_photos

train, test = load_photos("hand_signs", "train"), load_photos("hand_signs", "test")
persons = np.array([Path(path).stem for path in train.data])
print(f"{len(np.unique(persons))} persons to train on, {len(test.data)} photos of others to test on")

figure, axes = plt.subplots(3, 10, figsize=(9, 3.2), layout="constrained")
for person, row in zip(np.unique(persons)[[0, 5, 12]], axes, strict=True):
    for sign, ax in enumerate(row):
        ax.imshow(Image.open(train.data[(persons == person) & (train.target == sign)][0]))
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(person, fontsize=8)
for sign, ax in enumerate(axes[0]):
    ax.set_title(sign)
figure.suptitle("Ten signs, shown by three persons")

# %%
# More and more people
# --------------------
# For each number of persons, we draw them three times and fit :func:`~sktransfer.make_feature_classifier`. The network
# sees each photo once, because all fits find its features in the store.

from sktransfer import cache_info, clear_cache, make_feature_classifier

clear_cache()
random = np.random.default_rng(0)
numbers, n_draws = [1, 2, 4, 8, 16, 25], 3
accuracy = np.zeros((len(numbers), n_draws))
for i, number in enumerate(numbers):
    for j in range(n_draws):
        drawn = random.choice(np.unique(persons), number, replace=False)
        rows = np.isin(persons, drawn)
        model = make_feature_classifier(image_size=128, cv=3).fit(train.data[rows], train.target[rows])
        accuracy[i, j] = model.score(test.data, test.target)
    print(f"{number:2} persons: {accuracy[i].mean():.3f} ± {accuracy[i].std():.3f}")
print(f"images that the network has seen: {cache_info().misses}")

# %%
# The axis is logarithmic: each step to the right doubles the number of persons.

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.plot(numbers, accuracy, ".", color="C0", alpha=0.5)
ax.plot(numbers, accuracy.mean(axis=1), "o-", color="C0")
ax.axhline(0.1, color="grey", linestyle=":", label="guessing")
ax.set_xscale("log", base=2)
ax.set_xticks(numbers, [str(number) for number in numbers])
ax.set(xlabel="persons to train on, ten photos each", ylabel="accuracy on 15 other persons")
ax.set_title("Accuracy for new persons")
ax.legend()

# %%
# Which signs are mixed up?
# -------------------------
# The last model was trained on all 25 persons. :class:`~sktransfer.MistakesDisplay` shows what it gets wrong with the
# highest probability.

from sktransfer import MistakesDisplay

display = MistakesDisplay.from_estimator(model, test.data, test.target, n_shown=8)
predicted = model.predict(test.data)
wrong = predicted != test.target
pairs, counts = np.unique(np.stack([test.target[wrong], predicted[wrong]]), axis=1, return_counts=True)
for (sign, taken_for), count in zip(pairs.T, counts, strict=True):
    print(f"{sign} taken for {taken_for}: {count}")

# %%
# What to take from it
# --------------------
# One person is not enough: all ten photos show the same hand in the same light, and the accuracy for others is 0.45.
# With 25 persons it is 0.93. Each doubling of the number of persons has helped, and the curve still rises at its end.
# So the next photos should show new people.
#
# Seven of the ten mistakes are between the signs 6 to 9. These differ only in the finger that the thumb touches.
