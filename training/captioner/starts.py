"""The model that a captioner's training starts from, told apart by what its name or its folder is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dailies.curation import openclip
from dailies.curation.chat import chat_folder
from dailies.curation.downloads import HUB_ID
from dailies.curation.errors import ModelError
from dailies.curation.openclip import openclip_folder
from dailies.training.captioner.models import CaptionNetwork
from dailies.training.captioner.recipe import CaptionerRecipe
from dailies.zoo.formats.references import as_reference

CONFIG = "config.json"  # of transformers

Kind = Literal["coca", "video"]


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model to start from. ``name``: what it is loaded by: its folder, or as open_clip lists it, where ``folder`` is
    ``None``. ``reference``: how a record names it. ``kind``: the captioner that it is for."""

    name: str
    reference: str
    folder: Path | None
    kind: Kind

    @classmethod
    def of(cls, name: str) -> Start:
        """Look a model up, fetching a hub's: a folder, ``hf-hub:OWNER/NAME`` of open_clip's, ``OWNER/NAME`` of transformers',
        or NAME:PRETRAINED as open_clip lists it.

        Raises ``UsageError`` or ``Damaged`` for a folder that is neither's or not whole, and for a name of nothing.
        """
        if name.startswith(openclip.HUB):
            return cls._in_folder(openclip.folder_of(name) or Path(name), name)
        if Path(name).is_dir():
            folder = Path(name).resolve()
            return cls._in_folder(folder, as_reference(folder))
        if HUB_ID.fullmatch(name):
            return cls._in_folder(chat_folder.folder_of(name), name)
        openclip.fetch(name)
        return cls(name=name, reference=name, folder=None, kind="coca")

    @classmethod
    def _in_folder(cls, folder: Path, reference: str) -> Start:
        if (folder / openclip_folder.CONFIG).is_file():
            openclip_folder.check_folder(folder)
            return cls(name=str(folder), reference=reference, folder=folder, kind="coca")
        if not (folder / CONFIG).is_file():
            raise ModelError(
                f"from={folder}: holds neither {openclip_folder.CONFIG} nor {CONFIG}; give a CoCa of "
                "open_clip's or a video-language model of transformers'"
            )
        chat_folder.check(folder)
        return cls(name=str(folder), reference=reference, folder=folder, kind="video")

    def load(self, recipe: CaptionerRecipe) -> CaptionNetwork:
        """Load the model for training, on the CPU. Raises ``ModelError`` or ``UsageError`` for one that does not fit."""
        if self.kind == "coca":
            from dailies.training.captioner.coca import CocaNetwork

            return CocaNetwork(self.name, recipe)
        from dailies.training.captioner.video_language import VideoLanguageNetwork

        return VideoLanguageNetwork(Path(self.name), recipe)
