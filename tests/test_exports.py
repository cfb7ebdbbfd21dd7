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
