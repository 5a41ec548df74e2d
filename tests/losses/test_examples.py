"""The examples of the public losses run, and give what they say."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pytest
import torch

import maskfree
from maskfree import losses


@pytest.mark.parametrize("name", losses.__all__)
def test_the_example_of_a_loss_gives_what_it_says(name: str):
    known = {"torch": torch} | {each: getattr(losses, each) for each in losses.__all__}
    example = doctest.DocTestParser().get_doctest(
        getattr(losses, name).__doc__, known, name, None, None
    )
    assert any(f"{name}(" in step.source for step in example.examples), "no example calls it"

    found = doctest.DocTestRunner(verbose=False).run(example)
    assert found.failed == 0


def test_losses_are_listed_and_nothing_else():
    assert dir(losses) == sorted(losses.__all__)
    assert maskfree.losses is losses
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = losses.nothing


def test_importing_the_package_of_losses_imports_no_torch():
    code = "import sys, maskfree.losses; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
