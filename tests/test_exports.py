"""The package's names: each is there, and none costs an import before it is used."""

import doctest
import subprocess
import sys

import sktransfer


def test_exported_names_are_sorted_and_there():
    assert sktransfer.__all__ == sorted(sktransfer.__all__)
    assert all(getattr(sktransfer, name) is not None for name in sktransfer.__all__)
    assert set(sktransfer.__all__) <= set(dir(sktransfer))


def test_unknown_name():
    try:
        sktransfer.nonsense  # noqa: B018 - the access is what is tested
    except AttributeError as error:
        assert "nonsense" in str(error)
    else:
        raise AssertionError


def test_import_does_not_pay_for_torch():
    code = "import sys, sktransfer; assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_needs_no_network_is_imported_at_once():
    """On a quiet machine each takes half a second; importing torch or scikit-learn takes several."""
    code = (
        "import sys, sktransfer.__main__; from sktransfer import find_bad_images, find_duplicates; "
        "from sktransfer.datasets import load_image_folder; "
        "assert not {'torch', 'sklearn', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_classes_say_the_package_as_their_home():
    """Files and pickles name it, so a class may move to another private file."""
    public = [getattr(sktransfer, name) for name in sktransfer.__all__]
    assert {thing.__module__ for thing in public if isinstance(thing, type)} == {"sktransfer"}


def test_examples_of_public_classes_run():
    """pytest looks for the examples of a class in the module that the class names as its home."""
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    n_examples = 0
    for name in sktransfer.__all__:
        thing = getattr(sktransfer, name)
        if isinstance(thing, type):
            for test in finder.find(thing, name, module=False, globs={}):
                n_examples += len(test.examples)
                runner.run(test)
    assert runner.failures == 0 and n_examples >= 8
