"""The race of the strategies: each image is computed once, all see the same folds, and the time is kept."""

import re
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from racers import FROZEN, features_and_linear, numbered
from sktransfer import (
    FineTunedCNNClassifier,
    ImageError,
    PretrainedCNNFeatures,
    StrategyComparison,
    compare_strategies,
)
from sktransfer._strategies import _race
from sktransfer._strategies._fit_times import Cost
from tiny import FLAT_64


@pytest.fixture
def quick(monkeypatch):
    """No estimator is tried out, and no image looked at: each costs as many seconds as its ``cost`` says."""
    monkeypatch.setattr(_race, "measure_cost", lambda estimator, X, y: Cost(estimator.cost / len(y), 0.0, 0.0))


def test_frozen_strategies_compute_each_image_once(distinct, computed):
    comparison = compare_strategies(*distinct, strategies=FROZEN, cv=3, refit=False, **FLAT_64)
    assert sum(n for _, n in computed) == len(distinct[0])
    assert list(comparison.scores_) == FROZEN
    assert all(scores.shape == (3,) and scores.mean() > 0.8 for scores in comparison.scores_.values())


def test_frozen_stages_are_computed_once_even_if_the_store_in_memory_is_off(distinct, computed, no_store):
    compare_strategies(*distinct, strategies={"a": features_and_linear(), "b": features_and_linear()}, cv=3)
    assert sum(n for _, n in computed) == len(distinct[0])


def test_stored_views_are_computed_once(distinct, computed):
    X, y = distinct
    tuned = FineTunedCNNClassifier(freeze=7, augment="text", n_views=2, max_epochs=1, tta=2, random_state=0, **FLAT_64)
    compare_strategies(X, y, strategies={"tuned": tuned}, cv=3, refit=False)
    cold = [n for start, n in computed if start == 0]
    assert sum(cold) <= 4 * len(X)  # two views, the image at the cut, and its features for the first head


def test_memory_of_ones_own_is_used(distinct, tmp_path, computed):
    compare_strategies(*distinct, strategies="features + linear", cv=2, refit=False, memory=tmp_path, **FLAT_64)
    assert list(tmp_path.rglob("*"))
    features = PretrainedCNNFeatures(layer="all", memory=tmp_path, **FLAT_64)
    features.fit_transform(distinct[0])
    assert sum(n for _, n in computed) == len(distinct[0])


# --- the same folds for all -----------------------------------------------------------------------------------


def test_all_strategies_see_the_same_folds(recorder):
    X, y = numbered()
    compare_strategies(X, y, strategies={"a": recorder(0), "b": recorder(1)}, cv=3, refit=False)
    for calls in (recorder.fits, recorder.tests):
        a, b = ([rows for answer, rows in calls if answer == wanted] for wanted in (0, 1))
        assert a == b and len(a) == 3
    tested = [row for answer, rows in recorder.tests if answer == 0 for row in rows]
    assert sorted(tested) == list(range(30))
    assert all(not set(train) & set(test) for (_, train), (_, test) in zip(recorder.fits, recorder.tests, strict=True))


def test_folds_are_stratified_and_follow_the_random_state(recorder):
    X, y = numbered()
    for seed in (0, 0, 1):
        compare_strategies(X, y, strategies={"a": recorder()}, cv=5, refit=False, random_state=seed)
    folds = [rows for _, rows in recorder.tests]
    assert folds[:5] == folds[5:10] != folds[10:]
    assert all(y[rows].mean() == pytest.approx(1 / 3, abs=0.1) for rows in folds)


@pytest.mark.parametrize("cv", [3, GroupKFold(3)])
def test_groups_stay_together(recorder, cv):
    X, y = numbered()
    groups = np.repeat(np.arange(10), 3)  # one image of the smaller class in each
    compare_strategies(X, y, strategies={"a": recorder()}, cv=cv, groups=groups, refit=False)
    for (_, train), (_, test) in zip(recorder.fits, recorder.tests, strict=True):
        assert not set(groups[train]) & set(groups[test])
        assert len(test) > 0


def test_processes_find_the_same_scores(distinct):
    strategies = {"mine": features_and_linear()}
    one, two = (compare_strategies(*distinct, strategies=strategies, cv=2, n_jobs=n, refit=False) for n in (None, 2))
    np.testing.assert_array_equal(one.scores_["mine"], two.scores_["mine"])


def test_copies_on_both_sides_of_a_fold_are_a_warning(distinct):
    X, y = distinct
    doubled, labels = np.concatenate([X, X[:2]]), np.concatenate([y, y[:2]])
    with pytest.warns(UserWarning, match=r"4 of 62 images .* groups=find_duplicates"):
        compare_strategies(doubled, labels, strategies={"mine": features_and_linear()}, cv=15, refit=False)


def test_groups_of_copies_do_not_warn(distinct):
    X, y = distinct
    groups = np.append(np.arange(60), [0, 1])
    doubled, labels = np.concatenate([X, X[:2]]), np.concatenate([y, y[:2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare_strategies(
            doubled, labels, strategies={"mine": features_and_linear()}, cv=3, groups=groups, refit=False
        )


# --- within a time budget -------------------------------------------------------------------------------------


def test_time_budget_leaves_out_what_is_dear_and_names_it(recorder, quick):
    X, y = numbered()
    strategies = {"dear": recorder(0, cost=1e6), "dearer": recorder(0, cost=1e7), "cheap": recorder(1, cost=0.1)}
    comparison = compare_strategies(X, y, strategies=strategies, cv=3, time_budget=30)
    assert list(comparison.scores_) == ["dear", "cheap"]  # the first one is always run
    assert list(comparison.left_out_) == ["dearer"]
    assert "2778 h" in comparison.left_out_["dearer"] and "30 s were left" in comparison.left_out_["dearer"]
    assert "dearer" in comparison.summary() and "dearer" not in comparison.to_frame().index


class CostOfTraining:
    """Each training image costs as many seconds as the strategy's ``cost`` says."""

    def seconds(self, estimator, n_images, n_train, n_test):
        return estimator.cost * sum(n_train)


@pytest.mark.parametrize(("cost", "fraction"), [(0.01, 1), (0.03, 0.5), (0.06, 0.25), (0.12, 0.125), (0.3, None)])
def test_time_budget_trains_on_fewer_images(recorder, monkeypatch, cost, fraction):
    monkeypatch.setattr(_race, "measure_cost", lambda estimator, X, y: CostOfTraining())
    X, y = numbered(600)
    strategies = {"cheap": recorder(0), "dear": recorder(1, cost=cost)}  # 1,200 training images of three folds
    comparison = compare_strategies(X, y, strategies=strategies, cv=3, time_budget=20)
    if fraction is None:
        assert "dear" in comparison.left_out_
        return
    assert comparison.fractions_ == ({} if fraction == 1 else {"dear": fraction})
    trained, tested = ([rows for answer, rows in calls if answer == 1] for calls in (recorder.fits, recorder.tests))
    assert [len(rows) for rows in trained] == pytest.approx([400 * fraction] * 3, abs=2)
    assert all(sum(y[row] for row in rows) == pytest.approx(len(rows) / 3, abs=2) for rows in trained)
    assert sorted(sum(tested, [])) == list(range(600))  # on all test images
    assert (fraction == 1) == (comparison.notes() == [])
    if fraction < 1:
        assert f"1/{1 / fraction:.0f} of the training images" in comparison.summary()
        assert len(comparison.references_["dear"]) == 3
        same = [rows for answer, rows in recorder.fits if answer == 0 and len(rows) < 400]
        assert same == trained


def test_a_reference_that_takes_too_long_is_left_out(recorder, monkeypatch):
    monkeypatch.setattr(_race, "measure_cost", lambda estimator, X, y: CostOfTraining())
    X, y = numbered(300)
    strategies = {"first": recorder(0, seconds=0.5), "dear": recorder(1, cost=0.0028)}
    comparison = compare_strategies(X, y, strategies=strategies, cv=3, time_budget=2.5, refit=False)
    assert comparison.fractions_ == {"dear": 0.5}
    assert comparison.references_ == {}
    assert "with as many" not in comparison.summary() and "1/2 of the training images" in comparison.summary()


def test_a_part_of_a_table_that_is_called_features_keeps_its_memory(distinct):
    X, y = distinct
    table = ColumnTransformer([("features", PretrainedCNNFeatures(**FLAT_64), list(range(64)))])
    strategies = {"table": make_pipeline(table, LogisticRegression())}
    fitted = compare_strategies(X, y, strategies=strategies, cv=2).best_estimator_
    assert fitted[0].named_transformers_["features"].memory is None


@pytest.mark.parametrize("name", ["features + linear", "features + SVM"])
def test_the_best_strategy_does_not_keep_the_temporary_folder(distinct, name):
    best = compare_strategies(*distinct, strategies=name, cv=2, **FLAT_64).best_estimator_
    assert best.get_params()["features__memory"] is None
    assert getattr(best, "features_", best.get_params()["features"]).memory is None


def test_few_images_are_not_divided(recorder, monkeypatch):
    monkeypatch.setattr(_race, "measure_cost", lambda estimator, X, y: CostOfTraining())
    X, y = numbered(60)
    comparison = compare_strategies(
        X, y, strategies={"cheap": recorder(0), "dear": recorder(1, cost=0.2)}, cv=3, time_budget=20
    )
    assert "dear" in comparison.left_out_


def test_what_leads_with_as_many_images_may_be_the_best_with_all_of_them():
    scores = {"cheap": np.full(3, 0.8), "ahead": np.full(3, 0.7), "behind": np.full(3, 0.5)}
    references = {"ahead": np.full(3, 0.6), "behind": np.full(3, 0.6)}
    parts = {"ahead": 0.25, "behind": 0.25}
    found = StrategyComparison(
        "f1", [200] * 3, [100] * 3, scores_=scores, fractions_=parts, references_=references, seconds_={}
    )
    ahead, behind = found.notes()
    assert "'ahead' was trained on 1/4" in ahead and "'cheap' scored 0.600 with as many. With all of them it" in ahead
    assert "may be the best" not in behind


def test_fewer_images_make_differences_less_sure():
    scores = {"a": np.array([0.5, 0.6, 0.55]), "b": np.array([0.7, 0.81, 0.76])}
    whole = StrategyComparison("f1", [200] * 3, [100] * 3, scores_=scores)
    part = StrategyComparison("f1", [200] * 3, [100] * 3, scores_=scores, fractions_={"b": 0.25})
    assert part.p_value("b", "a") >= whole.p_value("b", "a")


def test_time_budget_stops_what_takes_longer_than_expected(recorder, quick):
    X, y = numbered()
    strategies = {"first": recorder(0), "slow": recorder(1, seconds=0.7), "third": recorder(2)}
    start = time.perf_counter()
    comparison = compare_strategies(X, y, strategies=strategies, cv=10, time_budget=1)
    assert time.perf_counter() - start < 4
    assert list(comparison.scores_) == ["first"] and comparison.best_strategy_ == "first"
    assert re.fullmatch("stopped after [12] of 10 folds, when the time was up", comparison.left_out_["slow"])
    assert comparison.left_out_["third"] == "the time was up"


def test_the_last_fit_comes_after_the_budget(recorder, quick):
    X, y = numbered()
    strategies = {"first": recorder(0, seconds=0.5), "second": recorder(1, cost=0.3)}
    budget = 0.5 * 3 + 0.5  # three folds of both, and too little for a fit of the first to all images
    comparison = compare_strategies(X, y, strategies=strategies, cv=3, time_budget=budget)
    assert not comparison.left_out_ and hasattr(comparison, "best_estimator_")


def test_no_trial_is_begun_when_the_time_is_nearly_up(recorder, monkeypatch):
    tried = []

    def slow_trial(estimator, X, y):
        tried.append(estimator.answer)
        time.sleep(0.5)
        return Cost(1e6, 0.0, 0.0)

    monkeypatch.setattr(_race, "measure_cost", slow_trial)
    X, y = numbered()
    strategies = {f"number {i}": recorder(i) for i in range(5)}
    comparison = compare_strategies(X, y, strategies=strategies, cv=3, time_budget=2)
    assert tried == [1, 2]
    assert comparison.left_out_["number 3"] == comparison.left_out_["number 4"] == "the time was up"


def test_small_budget_leaves_out_training_for_real(distinct):
    names = ["features + linear", "fine-tuned, freeze=0"]
    comparison = compare_strategies(*distinct, strategies=names, cv=3, time_budget=8, **FLAT_64)
    assert list(comparison.scores_) == names[:1] and list(comparison.left_out_) == names[1:]


# --- images beside numbers ------------------------------------------------------------------------------------


def beside_numbers(folder, images, y):
    """A table of paths and of a number that tells nothing, and a strategy that takes both."""
    paths = []
    for i, row in enumerate(images):
        path = folder / f"{i}.png"
        Image.fromarray((row.reshape(8, 8) * 15).astype(np.uint8)).resize((32, 32)).save(path)
        paths.append(str(path))
    frame = pd.DataFrame({"path": paths, "weight": np.arange(len(paths)) % 7})
    features = PretrainedCNNFeatures(image_size=64)
    columns = ColumnTransformer([("image", features, "path"), ("number", StandardScaler(), ["weight"])])
    return frame, y, make_pipeline(columns, LogisticRegression())


def test_a_column_of_images_beside_numbers(distinct, tmp_path, computed):
    frame, y, model = beside_numbers(tmp_path, *distinct)
    comparison = compare_strategies(frame, y, strategies={"both": model}, cv=3)
    assert comparison.scores_["both"].mean() > 0.8
    assert comparison.best_estimator_.score(frame, y) > 0.9
    assert comparison.best_estimator_[0].named_transformers_["image"].memory is None
    from sktransfer._strategies._fit_times import measure_cost

    assert measure_cost(model, frame, y, anew=True).frozen > 0


def test_copies_in_a_column_of_a_table_are_a_warning_too(distinct, tmp_path):
    X, y = distinct
    frame, y, model = beside_numbers(tmp_path, np.concatenate([X, X[:2]]), np.concatenate([y, y[:2]]))
    with pytest.warns(UserWarning, match=r"4 of 62 images"):
        compare_strategies(frame, y, strategies={"both": model}, cv=15, refit=False)


def test_an_image_that_cannot_be_read_in_a_table_is_an_error(distinct, tmp_path):
    frame, y, model = beside_numbers(tmp_path, *distinct)
    (tmp_path / "7.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="image 7"):
        compare_strategies(frame, y, strategies={"both": model}, cv=3)


def test_a_strategy_that_does_not_fit_the_table_costs_itself_alone(distinct, tmp_path):
    frame, y, model = beside_numbers(tmp_path, *distinct)
    wrong = clone(model).set_params(columntransformer__transformers=[("image", PretrainedCNNFeatures(), "pth")])
    comparison = compare_strategies(frame, y, strategies={"wrong": wrong, "both": model}, cv=3, refit=False)
    assert list(comparison.scores_) == ["both"]
    # scikit-learn 1.6 does not name the column.
    assert re.search("'pth'|A given column is not a column", comparison.left_out_["wrong"])
