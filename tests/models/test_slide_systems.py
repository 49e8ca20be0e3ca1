"""What holds of every system that learns a task from bags, asked of whichever are registered."""

from __future__ import annotations

import pytest
import slides
from synthetic import small_options, without_dropout

from models.methods.slides._bag import BagMethod
from models.registry import families, get_method

SYSTEMS = [n for n in families()["slides"] if issubclass(get_method(n), BagMethod)]
ORDERED = {"transmil"}
"""They see the order of patches."""
# A patch is in both groups of CLAM's recommended instance loss in no bag, so a bag of one has no such term, and the mean over bags of a
# batch is not that of bags alone; test_clam_equations.py asks for it.
UNEVEN = {("clam", "recommended")}
BAGS = (300, 12, 3, 1)


def small(name: str, **options) -> slides.Method:
    return slides.build(name, **{**small_options(name), **without_dropout(get_method(name)), **options})


@pytest.mark.parametrize("target", [slides.BINARY, slides.kinds(3)], ids=["binary", "three"])
@pytest.mark.parametrize("conventions", ["recommended", "published"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_bags_of_any_length_stand_for_themselves(name, conventions, target):
    model = slides.tuned(small(name, conventions=conventions), target)
    if (name, conventions) not in UNEVEN:
        slides.check_bags(model, lambda i: i % 2, BAGS, ordered=name in ORDERED)
    slides.check_missing(model)
