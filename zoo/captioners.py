"""Publishing a captioner of one's own: its folder as it was trained, with a card and a lock.

It is a component, as the built-in captioner is: recipes take it as ``zoo:NAME`` in a caption step.
"""

from __future__ import annotations

import math
import shutil
from datetime import UTC, datetime
from pathlib import Path

from dailies.curation import cards, inside
from dailies.curation.errors import UsageError
from dailies.curation.model_folders import refuse_code
from dailies.curation.plain_text import counted
from dailies.curation.progress import progress_in_force
from dailies.zoo.captioner_record import CaptionerRun
from dailies.zoo.card import CARD, TEMPLATES
from dailies.zoo.catalog import ENTRIES
from dailies.zoo.entry import Sources, ZooEntry
from dailies.zoo.formats import safetensors_info
from dailies.zoo.published_folder import dailies_version, forget_places
from dailies.zoo.store import ENTRY, Store
from dailies.zoo.units import count, duration, megabytes

SAMPLES = "samples.png"
PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins
MOST_PIXELS = 1 << 25  # of a video, as some processors count them
EXAMPLES = 5  # captions that the card shows
LIBRARIES = {"coca": "open_clip", "video": "transformers"}
PIPELINE_TAGS = {"coca": "image-to-text", "video": "video-text-to-text"}
WHAT = {"coca": "CoCa on the middle frame of a clip", "video": "Video-language model on the frames of a clip"}
FIGURES = (
    ("loss", "cross-entropy of the references' tokens, nats a token", "{:.3f}"),
    ("token_accuracy", "tokens guessed right after the true ones", "{:.1%}"),
    ("cider_d", "CIDEr-D (arXiv 1411.5726), 0–10", "{:.2f}"),
    ("chrf", "chrF (sacrebleu), 0–100", "{:.1f}"),
    ("colors", "colours as the reference has them", "{:.1%}"),
    ("shapes", "shapes as the reference has them", "{:.1%}"),
    ("motion", "motion words as the reference has them", "{:.1%}"),
)


def publish_captioner(run: str | Path, *, name: str, to: str | Path, licence: str | None = None) -> ZooEntry:
    """Publish the captioner that the training run at ``run`` made, as ``name`` in the zoo at ``to``.

    Raises ``UsageError`` (``NameTaken`` among them) before any work for whatever is absent or does not fit together.
    """
    store = Store(to)
    store.check_free(name, ENTRIES)
    record = CaptionerRun.read(run)
    model = record.model()
    with progress_in_force()("publish", None, "copying weights"), store.adding(name) as folder:
        for entry in inside.walk(model):
            target = folder / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry.is_file:
                shutil.copyfile(inside.inside(model, entry.name), target)
        refuse_code(folder, classes={}, templates=True, most_side=MOST_PIXELS)
        forget_places(folder)
        pictured = _copy_samples(record, folder)
        row = _entry(name, record, folder, licence)
        (folder / CARD).write_text(_card(row, record, folder, pictured), encoding="utf-8")
        (folder / ENTRY).write_text(row.to_json(), encoding="utf-8")
    return row


def _copy_samples(run: CaptionerRun, folder: Path) -> bool:
    """Copy the run's sample picture, and return whether there was one that is a picture."""
    path = inside.inside(run.folder, SAMPLES)
    if not path.is_file():
        return False
    content = inside.read_bytes(run.folder, SAMPLES)
    if not content.startswith(PNG):
        raise UsageError(f"{path}: is no PNG, as the samples of a run are; remove it")
    (folder / SAMPLES).write_bytes(content)
    return True


def _entry(name: str, run: CaptionerRun, folder: Path, licence: str | None) -> ZooEntry:
    parameters, size = safetensors_info.size(folder)
    frames = 1 if run.kind == "coca" else int(run.recipe["frames"])
    return ZooEntry(
        name=name,
        task="captioner",
        frames=frames,
        licence=licence,
        parameters=parameters,
        bytes=size,
        about=f"{WHAT[run.kind]}, finetuned from {run.start_name} on {counted(int(run.clips['train']), 'clip')}; "
        f"captioner {run.kind}",
        published=datetime.now(UTC).isoformat(timespec="seconds"),
        version=dailies_version(),
        sources=Sources(
            recipe="captioner",
            recipe_hash=run.recipe_hash,
            data=run.export.name or Path(run.data).name,
            clips=int(run.clips["train"]),
            selection=run.export.selection,
            curation=run.export.recipe,
            curation_hash=run.export.recipe_hash,
        ),
    )


def _card(entry: ZooEntry, run: CaptionerRun, folder: Path, pictured: bool) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        license=entry.licence or "unknown",
        pipeline_tag=PIPELINE_TAGS[run.kind],
        library_name=LIBRARIES[run.kind],
        tags=["captioning", "video", "dailies"],
    )
    return cards.render(
        TEMPLATES / "captioner_card.md.j2",
        data,
        entry=entry,
        run=run,
        what=WHAT[run.kind],
        maker=run.caption_maker,
        samples=SAMPLES if pictured else None,
        figure_rows=_figure_rows(run),
        examples=run.examples[:EXAMPLES],
        rule_rows=[(column, cards.to_json(rule)) for column, rule in run.export.rules.items()],
        weights=_weights(folder),
        settings=_settings(run),
        parameters=count(entry.parameters),
        size=megabytes(entry.bytes),
        time=duration(run.seconds),
    )


def _weights(folder: Path) -> list[tuple[str, str, str]]:
    """Return name, parameters and size of each file of weights."""
    rows = []
    for path in sorted(folder.glob("*.safetensors")):
        shapes = [shape for _, shape in safetensors_info.header(path).values()]
        rows.append((path.name, count(sum(map(math.prod, shapes))), megabytes(path.stat().st_size)))
    return rows


def _figure_rows(run: CaptionerRun) -> list[tuple[str, str, str]]:
    return [
        (label, form.format(run.before[name]), form.format(run.after[name]))
        for name, label, form in FIGURES
        if name in run.after and name in run.before
    ]


def _settings(run: CaptionerRun) -> str:
    """Return the recipe's values that say what was learnt and how, on one line."""
    names = [
        "steps",
        "batch",
        "lr",
        "trains",
        *(["contrast_weight", "caption_weight"] if run.kind == "coca" else ["frames", "rank"]),
    ]
    return ", ".join(f"{name} {run.recipe[name]}" for name in names if name in run.recipe)
