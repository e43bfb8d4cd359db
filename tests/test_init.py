"""The face: a few names, each loaded when it is used, all of them documented."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import mirage


def test_every_name_is_there():
    assert set(mirage.__all__) == set(dir(mirage))
    assert len(mirage.__all__) <= 16
    for name in mirage.__all__:
        assert name == "__version__" or getattr(mirage, name).__doc__


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mirage.nothing


def test_version_is_that_of_the_package():
    assert version("mirage-world") == mirage.__version__


def test_help_needs_no_model_code():
    code = (
        "import sys; sys.argv = ['mirage', '--help']\nfrom mirage.cli import main\ntry: main()\nexcept SystemExit: pass"
    )
    code += "\nprint([p for p in ('torch', 'diffusers', 'transformers') if p in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
