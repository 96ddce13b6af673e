"""The training recipes: one file each, and the table RECIPES.

``LACKING``: recipe → the runs of its paper that it leaves out, each with the reason; ``DIFFERS``: where it departs from it.
"""

from __future__ import annotations

from training.recipes import svd as _svd
from training.recipes.tiny import tiny

RECIPES = {"tiny": tiny, "svd": _svd.svd}
LACKING = {"svd": _svd.LACKING}
DIFFERS = {"svd": _svd.DIFFERS}
