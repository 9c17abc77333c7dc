"""Packages that seem absent while a library is imported."""

import importlib
import json
import sys
from importlib.util import find_spec

import pytest

from pipeline.lean import absent


def test_a_package_seems_not_to_be_installed_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with absent("colorsys", "json"):
        assert find_spec("colorsys") is None
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("colorsys")
        assert importlib.import_module("json") is json, "what is imported already stays"
    assert importlib.import_module("colorsys").__name__ == "colorsys"


def test_it_is_there_again_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(RuntimeError), absent("colorsys"):
        raise RuntimeError
    assert find_spec("colorsys") is not None
