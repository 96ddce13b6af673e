"""What training a captioner left behind: ``captioner.json`` and the folder of the model. Read only; no weight is loaded.

::

    RUN/captioner.json
        kind        coca or video: the captioner that loads the model
        recipe      object: steps, batch, lr, caption (the column), prompt, frames, trains …
        start       what was finetuned: zoo:NAME, a folder, or a name of open_clip's
        data        path of the export trained on
        export      object: that export's ``export.json``
        clips       {train, held_out, split, first_clip_ids}
        before      figures of held-out clips before the first step, and
        after       after the last: loss, token_accuracy, cider_d, chrf, colors, shapes, motion, clips
        examples    [{clip_id, caption, written}]
        seconds, done
    RUN/model/      the model
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dailies.curation import inside
from dailies.curation.config import read_object
from dailies.curation.errors import RunError
from dailies.zoo.provenance import SourceExport

RECORD = "captioner.json"
MODEL = "model"
KINDS = ("coca", "video")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerRun:
    """A run of ``train captioner``. ``recipe``: as the trainer wrote it; ``before``, ``after``: figures by name."""

    folder: Path
    kind: str
    recipe: Mapping[str, Any]
    start: str
    data: str
    export: SourceExport
    clips: Mapping[str, Any]
    before: Mapping[str, float]
    after: Mapping[str, float]
    examples: tuple[Mapping[str, str], ...]
    seconds: float

    @classmethod
    def is_there(cls, folder: str | Path) -> bool:
        """Return whether ``folder`` holds such a run."""
        return os.path.lexists(Path(folder).expanduser() / RECORD)

    @classmethod
    def read(cls, folder: str | Path) -> CaptionerRun:
        """Read the record of a run that is done. Raises ``RunError`` that names what is absent or has the wrong form."""
        folder = Path(folder).expanduser().absolute()
        path = folder / RECORD
        row = read_object(inside.read_bytes(folder, RECORD), f"{path}:", RunError)
        try:
            if not row["done"]:
                raise RunError(f"{folder}: its training is not done; repeat dailies train captioner, which goes on")
            if row["kind"] not in KINDS:
                raise RunError(f"{path}: kind={row['kind']!r}: must be one of {', '.join(KINDS)}")
            return cls(
                folder=folder,
                kind=str(row["kind"]),
                recipe=dict(row["recipe"]),
                start=str(row["start"]),
                data=str(row["data"]),
                export=SourceExport.of_run(row),
                clips=dict(row["clips"]),
                before=_figures(row["before"]),
                after=_figures(row["after"]),
                examples=tuple(dict(each) for each in row["examples"]),
                seconds=float(row["seconds"]),
            )
        except KeyError as error:
            raise RunError(f"{path}: {error.args[0]} is missing") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error

    @property
    def recipe_hash(self) -> str:
        return hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def start_name(self) -> str:
        """Return what was finetuned without where it lies: a name, or a folder's last part."""
        return Path(self.start).name if os.sep in self.start and Path(self.start).is_absolute() else self.start

    @property
    def caption_maker(self) -> Mapping[str, Any]:
        """Return who wrote the captions that it was trained on, as the export says it; empty where it does not."""
        maker = self.export.captions.get(str(self.recipe["caption"]))
        return maker if isinstance(maker, Mapping) else {}

    def model(self) -> Path:
        """Return the folder of the model. Raises ``RunError`` where it is gone."""
        folder = inside.inside_whole(self.folder, MODEL)
        if not folder.is_dir():
            raise RunError(f"{self.folder}: {MODEL}/ is gone; train again into another --out")
        return folder


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if value is not None}
