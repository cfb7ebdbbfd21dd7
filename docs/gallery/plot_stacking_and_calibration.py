"""
Stacking and calibrated probabilities
=====================================

Whoever acts on a probability needs one that is right: of all cells that are called defective with 0.8, four of five
should be. A support vector machine gives no probabilities, and a strong logistic regression gives extreme ones. Two
tools of scikit-learn help: ``CalibratedClassifierCV`` corrects the probabilities, and ``StackingClassifier`` lets a
last model weigh several others. Both work with the features of a network, which are computed once for all.
"""

# %%
# The data
# --------
# 500 solar cells to train on, 700 others to test on.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from sktransfer.datasets import load_elpv

cells = load_elpv()
X_train, X_test, y_train, y_test = train_test_split(
    cells.data, cells.target, train_size=500, test_size=700, stratify=cells.target, random_state=0
)
print(f"{y_test.mean():.0%} of the test cells are defective")

# %%
# Five classifiers
# ----------------
# Two simple ones stand on the last stage of :class:`~sktransfer.PretrainedCNNFeatures`, and on a stage in the middle.
# The logistic regression has a large ``C``, as one would choose it for accuracy alone. ``CalibratedClassifierCV`` holds
# out a fifth of the cells at a time to correct it. The stack joins both with a last logistic regression. Finally,
# :func:`~sktransfer.make_feature_classifier` chooses stages and ``C`` by held-out cells, and is calibrated by them too.

from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sktransfer import PretrainedCNNFeatures, cache_info, clear_cache, make_feature_classifier

shared = {"image_size": 128, "pooling": "avgstd"}
strong = make_pipeline(PretrainedCNNFeatures(**shared), StandardScaler(), LogisticRegression(C=10, max_iter=2000))
middle = make_pipeline(PretrainedCNNFeatures(layer="stage5", **shared), StandardScaler(), SVC(C=3))
classifiers = {
    "last stage, C=10": strong,
    "last stage, calibrated": CalibratedClassifierCV(strong, cv=5),
    "middle stage, SVM, calibrated": CalibratedClassifierCV(middle, cv=5, ensemble=False),
    "stack of both": StackingClassifier([("last", strong), ("middle", middle)], LogisticRegression(), cv=5),
    "make_feature_classifier": make_feature_classifier(image_size=128),
}

# %%
# The Brier score is the mean squared error of the probability. It is small if a classifier is both sharp and right.

from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

clear_cache()
p_defective = {}
print(f"{'':30} accuracy    AUC  log loss  Brier")
for name, classifier in classifiers.items():
    p = classifier.fit(X_train, y_train).predict_proba(X_test)[:, 1]
    p_defective[name] = p
    accuracy, auc = np.mean((p > 0.5) == y_test), roc_auc_score(y_test, p)
    print(f"{name:30}    {accuracy:.3f}  {auc:.3f}     {log_loss(y_test, p):.3f}  {brier_score_loss(y_test, p):.3f}")
print(f"images that passed through the network: {cache_info().misses}, of {len(X_train) + len(X_test)} cells")

# %%
# Are the probabilities right?
# ----------------------------
# The cells are sorted by their probability and cut into ten parts of equal size. If the probabilities are right, the
# share of defective cells in each part equals their mean, which is the dotted line. The histograms show how often each
# probability occurs.

from sklearn.calibration import calibration_curve

figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 4), layout="constrained")
left.plot([0, 1], [0, 1], ":", color="grey")
for colour, (name, p) in enumerate(p_defective.items()):
    observed, expected = calibration_curve(y_test, p, n_bins=10, strategy="quantile")
    left.plot(expected, observed, "o-", markersize=4, color=f"C{colour}", label=name)
    right.hist(p, bins=np.linspace(0, 1, 21), histtype="step", color=f"C{colour}")
left.set(xlabel="mean probability", ylabel="share of defective cells", title="Calibration curves")
right.set(xlabel="probability of a defect", ylabel="cells", title="How often each probability occurs")
left.legend(fontsize=8)

# %%
# What to take from it
# --------------------
# The logistic regression with a large ``C`` is nearly always sure, and often wrong. Its log loss is 1.05, and always
# saying 31% would have 0.62. Calibration brings that down to 0.47 at the same accuracy. It has become too careful
# instead: its curve is steeper than the dotted line.
#
# The stage in the middle is better on solar cells than the last one, in every column. The stack finds that out by
# itself and is about as good. So is ``make_feature_classifier``, which needs no such choices. The curves of these three
# are close to the dotted line. Each cell passed through the network three times, once for each kind of features,
# however often the classifiers were fitted.
