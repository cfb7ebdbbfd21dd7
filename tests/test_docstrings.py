"""The docstrings of all public names follow numpydoc, and say the same where two estimators share a parameter."""

import inspect

import pytest
from numpydoc.validate import validate
from sklearn.utils._testing import assert_docstring_consistency

import sktransfer
from sktransfer import FineTunedCNNClassifier, PretrainedCNNFeatures

# Rules of numpydoc that are not followed, each with the reason. All the others are.
SWITCHED_OFF = {
    "ES01": "a summary that says all needs no second paragraph",
    "SA01": "a name that stands alone has no See Also",
    "RT02": "what is returned has a name, as in scikit-learn",
}
OF_MEMBERS = {"EX01": "the class has the example"}  # methods and properties are on the page of their class
OF_RESULTS = {"PR01": "functions make them, so their fields are described as attributes"}
RESULTS = {"BadImage", "CacheInfo", "RankedBackbone", "Recommendation", "StrategyComparison"}
# Parameters of both estimators that mean something else in each of them.
DESCRIBED_DIFFERENTLY = {
    "weights": "None means random weights here, and training from scratch there",
    "batch_size": "it changes the speed alone here, and the training there",
    "crop": "the defaults differ (TRAIN-09)",
    "image_size": "the size without it depends on crop",
}


def public():
    """Name everything that the reference shows, and say of each whether it belongs to a class."""
    for module in (sktransfer, sktransfer.datasets):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.ismodule(thing):
                continue
            yield f"{module.__name__}.{name}", False
            if inspect.isclass(thing):
                for member, value in vars(thing).items():
                    shown = callable(value) or isinstance(value, (property, classmethod))
                    if shown and not member.startswith("_"):
                        yield f"{module.__name__}.{name}.{member}", True


PUBLIC = list(public())


@pytest.mark.parametrize(("name", "is_member"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_docstring_follows_numpydoc(name, is_member):
    off = {*SWITCHED_OFF, *(OF_MEMBERS if is_member else ())}
    if name.rpartition(".")[2] in RESULTS:
        off |= set(OF_RESULTS)
    errors = [f"{code}: {message}" for code, message in validate(name)["errors"] if code not in off]
    assert errors == []


def test_rules_that_are_switched_off_would_find_something():
    """A rule that is followed by now need not be switched off."""
    found = {code for name, _ in PUBLIC for code, _ in validate(name)["errors"]}
    assert {*SWITCHED_OFF, *OF_MEMBERS, *OF_RESULTS} <= found


def test_shared_parameters_are_described_in_the_same_words():
    classes = [PretrainedCNNFeatures, FineTunedCNNClassifier]
    shared = set.intersection(*(set(inspect.signature(one).parameters) for one in classes))
    assert shared > set(DESCRIBED_DIFFERENTLY)
    assert len(shared) > 10
    assert_docstring_consistency(classes, include_params=sorted(shared - set(DESCRIBED_DIFFERENTLY)))
