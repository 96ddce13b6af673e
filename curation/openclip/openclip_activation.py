"""Which activation the weights of open_clip's own tags need.

Weights of OpenAI, MetaCLIP, DFN and some of LAION were trained with QuickGELU, x · sigmoid(1.702 x). open_clip builds the
activation that the *model's* configuration names and only warns where the *tag's* names another: ``ViT-L-14:openai`` comes
out with GELU, and every embedding of it is off. Here the tag decides, for it is about the weights.
"""

from __future__ import annotations

from typing import Any

from dailies.curation.errors import UsageError

CORRECTED = {
    "RN50": ("", "openai", "yfcc15m", "cc12m"),
    "RN101": ("", "openai", "yfcc15m"),
    "RN50x4": ("", "openai"),
    "RN50x16": ("", "openai"),
    "RN50x64": ("", "openai"),
    "ViT-B-32": ("", "openai", "laion400m_e31", "laion400m_e32", "metaclip_400m", "metaclip_fullcc"),
    "ViT-B-16": ("", "openai", "dfn2b", "metaclip_400m", "metaclip_fullcc"),
    "ViT-L-14": ("", "openai", "metaclip_400m", "metaclip_fullcc", "dfn2b"),
    "ViT-L-14-336": ("", "openai"),
    "ViT-H-14": ("metaclip_fullcc", "dfn5b"),
    "ViT-H-14-378": ("", "dfn5b"),
    "ViT-H-14-worldwide": ("", "metaclip2_worldwide"),
    "ViT-bigG-14": ("metaclip_fullcc",),
}
"""Model → tags whose values were of the wrong activation before it was corrected, so that they have other tables since; an
empty tag is the model's first. Written down, as naming a table must not import open_clip."""


def pinned(name: str) -> str:
    """Return what stands for open_clip's own ``NAME`` or ``NAME:PRETRAINED`` in fingerprints."""
    model, _, tag = name.partition(":")
    return f"{name} with quick_gelu" if tag in CORRECTED.get(model, ()) else name


def activation(model: str, tag: str | None) -> dict[str, Any]:
    """Return what to give open_clip's factory, so that ``model`` has the activation that the weights of ``tag`` need.

    Raises ``UsageError`` where the model's configuration asks for QuickGELU and the tag, whose default is none, does not:
    nothing tells which of them is right.
    """
    import open_clip

    if tag is None:  # a folder, whose configuration lies beside its weights
        return {}
    of_weights = bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False))
    of_model = bool((open_clip.get_model_config(model) or {}).get("quick_gelu", False))
    if of_model and not of_weights:
        raise UsageError(
            f"model={f'{model}:{tag}'!r}: open_clip's lists disagree on its activation, QuickGELU by the model and not by the "
            "weights; name its repository as hf-hub:OWNER/NAME, whose configuration lies beside the weights"
        )
    return {"force_quick_gelu": True} if of_weights else {}
