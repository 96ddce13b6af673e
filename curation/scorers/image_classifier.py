"""Image classifiers of transformers, by folder or by id on the hub: safetensors and data alone, and no code but transformers'.

torch and transformers are imported inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dailies.curation import transformers_folder
from dailies.curation.config import offered
from dailies.curation.errors import UsageError
from dailies.curation.litter import without_litter
from dailies.curation.model_folders import CLASSES, refuse_code

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
WANTED = (CONFIG, PROCESSOR, "*.safetensors", "*.safetensors.index.json")
ELSEWHERE = frozenset({"timm_wrapper"})  # kinds whose network another library makes


@dataclass(frozen=True, kw_only=True)
class ImageClassifier:
    """A classifier at work. ``labels``: what its outputs stand for, in order; ``apart``: each is a yes or no of its own."""

    model: Any
    processor: Any
    labels: tuple[str, ...]
    apart: bool
    device: str

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Return the probability (n, labels) of each label for pictures (h, w, 3) in RGB."""
        import torch
        from PIL import Image

        inputs = self.processor(images=[Image.fromarray(picture) for picture in pictures], return_tensors="pt")
        with torch.inference_mode():
            logits = self.model(**inputs.to(self.device)).logits
        shares = torch.sigmoid(logits.double()) if self.apart else torch.softmax(logits.double(), -1)
        return np.asarray(shares.cpu())


def load_classifier(name: str, *, gpu: bool = False) -> ImageClassifier:
    """Load a classifier. Raises ``UsageError`` for a name of nothing, and ``Damaged`` for a folder that asks for code."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = folder_of(name)
    labels = check_folder(folder, name)
    device = "cuda" if gpu else "cpu"
    with transformers_folder.loading(f"classifier={name!r}"):
        processor = AutoImageProcessor.from_pretrained(str(folder), **transformers_folder.SAFE)
        model = transformers_folder.load_whole(AutoModelForImageClassification.from_pretrained, folder)
    apart = len(labels) == 1 or model.config.problem_type == "multi_label_classification"
    return ImageClassifier(
        model=model.eval().to(device), processor=processor, labels=labels, apart=apart, device=device
    )


def check_folder(folder: Path, name: str) -> tuple[str, ...]:
    """Return the labels of the classifier in ``folder``, which is looked through before any library sees it.

    Raises ``UsageError`` for a folder that holds none, and ``Damaged`` for one that may hold code or asks for some.
    """
    refuse_code(folder, classes=_classes())
    for file in (CONFIG, PROCESSOR):
        if not (folder / file).is_file():
            raise UsageError(f"classifier={name!r}: has no {file}; give a folder of transformers, or a hub id ORG/NAME")
    if not any(without_litter(folder, "*.safetensors")):
        raise UsageError(f"classifier={name!r}: holds no weights in safetensors")
    row = transformers_folder.config_of(folder, f"classifier={name!r}")
    told = row.get("id2label")
    if not isinstance(told, Mapping) or not all(str(key).isdecimal() for key in told):
        raise UsageError(f"classifier={name!r}: its {CONFIG} has no id2label, so nothing says what its outputs are")
    numbers = sorted(told, key=int)
    if [int(key) for key in numbers] != list(range(len(numbers))):
        raise UsageError(
            f"classifier={name!r}: id2label of its {CONFIG} does not number its outputs from 0; mend it there"
        )
    labels = tuple(str(told[key]) for key in numbers)
    lowered = [label.lower() for label in labels]
    if twice := [label for label in labels if lowered.count(label.lower()) > 1]:
        raise UsageError(
            f"classifier={name!r}: its labels {', '.join(twice)} are one but for capitals; name them apart in its {CONFIG}"
        )
    return labels


def _classes() -> Mapping[str, frozenset[str]]:
    """Return the classes that a classifier's folder may name: those of transformers' own table, and their processors."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as TABLE

    models: set[str] = set()
    for kind, names in TABLE.items():
        models |= set() if kind in ELSEWHERE else {names} if isinstance(names, str) else set(names)
    processors = {
        f"{stem}{kind}"
        for stem in (*_stems(models), "Bit", "BlipNext")
        for kind in ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
    }
    known = CLASSES | {"architectures": frozenset(models), "model_type": frozenset(set(TABLE) - ELSEWHERE)}
    return known | dict.fromkeys(("image_processor_type", "feature_extractor_type"), frozenset(processors))


def _stems(models: set[str]) -> set[str]:
    return {name.partition("ForImageClassification")[0] for name in models}


def folder_of(name: str) -> Path:
    """Return the folder that ``name`` stands for; a hub's is fetched, as far as it is data. Raises ``UsageError``."""
    return transformers_folder.folder_of(name, wanted=WANTED, named=f"classifier={name!r}")


def numbers_of(labels: Sequence[str], wanted: Sequence[str], name: str) -> list[int]:
    """Return which outputs the labels ``wanted`` are, small and capital letters alike. Raises ``UsageError``."""
    known = {label.lower(): number for number, label in enumerate(labels)}
    for label in wanted:
        if label.lower() not in known:
            raise UsageError(f"labels={label!r}: classifier {name} has no such label{offered(label, labels)}")
    return [known[label.lower()] for label in wanted]


def fingerprint(folder: Path) -> str:
    """Return the sha256 of all that changes what the classifier in ``folder`` says."""
    return transformers_folder.fingerprint(folder, (CONFIG, PROCESSOR))
