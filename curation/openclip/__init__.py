"""open_clip's models: loading by name, folder or hub, their folders checked, the activation that weights need, and captions out
of a CoCa. Scorers, the captioner ``coca`` and its training come in here; torch and open_clip are imported where one is loaded.
"""

from dailies.curation.openclip.models import (
    HUB,
    ZOO,
    Loaded,
    OpenClip,
    SpecialTokens,
    check,
    fetch,
    folder_of,
    load,
    own_weights,
    weights,
)

__all__ = [
    "HUB",
    "ZOO",
    "Loaded",
    "OpenClip",
    "SpecialTokens",
    "check",
    "decoding",
    "fetch",
    "folder_of",
    "load",
    "openclip_activation",
    "openclip_folder",
    "own_weights",
    "weights",
]
