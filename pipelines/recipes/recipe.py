"""The curation recipe: an ordered list of steps, checked as a whole before any work starts.

A recipe is YAML (see ``pipelines/recipes``)::

    name: quickstart
    steps:
      - observe: {observers: [boundary, motion], evidence: {fps: 1}}
      - cut: {detector: boundary, min_seconds: 2, max_seconds: 10}
      - score: {scorer: text}
      - select: {name: main, rules: {motion: {min_quantile: 0.25}, text_area: {max: 0.07}}}
      - export: {select: main}

``--set`` changes one value of it: see ``dailies.pipelines.recipes.overrides``. In Python the same is a list of objects:
``CurationRecipe.of("quickstart", [ObserveStep(…), CutStep(…), …])``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dailies.curation.config import StrictModel, format_error, keys_of, offered, read_yaml
from dailies.curation.detectors import DETECTORS
from dailies.curation.errors import RecipeError
from dailies.curation.schema import fingerprint, is_listed
from dailies.pipelines.recipes.checks import check_steps
from dailies.pipelines.recipes.linking import linked
from dailies.pipelines.recipes.overrides import apply_override
from dailies.pipelines.recipes.own import OwnSpec, prompt_texts
from dailies.pipelines.recipes.specs import kind_of, meaning_of, observer_meaning, resolved
from dailies.pipelines.recipes.steps import (
    SPECS,
    STEPS,
    Annotation,
    CutStep,
    DedupStep,
    ObserveStep,
    ScoreStep,
    SelectStep,
    Step,
    kind_of_step,
    step_data,
)

__all__ = ["CurationRecipe", "load_recipe", "parse_recipe", "recipe_names", "resolved"]

RECIPES = Path(__file__).parent
ALIASES = {"default": "cpu"}
"""Names that built-in recipes go by besides their own."""


class CurationRecipe(StrictModel):
    """A recipe whose steps fit together.

    ``source``: the recipe as plain data with overrides applied; what is written down and fingerprinted. ``notes``: a line
    for people about each name in it that is no longer the current one.
    """

    name: str
    steps: tuple[Any, ...]
    source: dict[str, Any]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, steps: Sequence[Step]) -> CurationRecipe:
        """Make a recipe of steps. Raises ``RecipeError`` where they do not fit together."""
        source = json.loads(json.dumps({"name": name, "steps": [step_data(step) for step in steps]}))
        steps = linked(steps, name)
        check_steps(steps, name)
        return cls(name=name, steps=steps, source=source)

    @property
    def hash(self) -> str:
        return fingerprint(self.source)

    def step(self, kind: type[Any]) -> Any:
        """Return the only step of this kind."""
        return next(step for step in self.steps if isinstance(step, kind))

    # ---- tables: each name carries the fingerprint of what gives its values their meaning ----

    @property
    def observations(self) -> str:
        step = self.step(ObserveStep)
        meaning = [observer_meaning(observer) for observer in step.observers] + [meaning_of(step.evidence)]
        return f"observations@{fingerprint(meaning)}"

    @property
    def clips(self) -> str:
        step = self.step(CutStep)
        detector = kind_of(step.detector, DETECTORS)
        own = step.model_dump(exclude={"detector"}) | {"detector": meaning_of(step.detector), "meaning": CLIPS_MEANING}
        return f"clips/{detector}@{fingerprint([self.observations, own])}"

    def annotations(self, step: Annotation) -> str:
        """Return the table of a scorer or captioner: its meaning takes in that of the columns it reads."""
        above = [self.annotations(earlier) for earlier in self.feeding(step)]
        meaning = [self.clips, *above, meaning_of(step.spec), resolved(step.spec).weights()]
        return f"{step.table}@{fingerprint(meaning)}"

    def feeding(self, step: Annotation) -> list[Annotation]:
        """Return the earlier scorers and captioners whose columns a step reads."""
        return [
            earlier
            for earlier in self.before(step)
            if any(column.name in step.spec.needs for column in earlier.shown.values())
        ]

    def lists_for(self, step: Annotation) -> list[tuple[Annotation, dict[str, str]]]:
        """Return the earlier steps whose columns of lists a step needs: name in the step's table → as it is known."""
        needed = []
        for earlier in self.before(step):
            columns = {
                name: known.name
                for name, known in earlier.shown.items()
                if is_listed(known.type) and known.name in step.spec.needs
            }
            needed += [(earlier, columns)] if columns else []
        return needed

    @property
    def signatures(self) -> str:
        """The table of what clips look like, which dedup steps read."""
        signer = DedupStep().signer
        return f"signatures/frames@{fingerprint([self.clips, meaning_of(signer)])}"

    def embedder(self, step: DedupStep) -> ScoreStep:
        """Return the step whose embeddings a dedup step reads."""
        assert step.semantic is not None
        named = {earlier.name: earlier for earlier in self.before(step) if isinstance(earlier, ScoreStep)}
        return named[step.semantic.embed]

    def duplicates(self, step: DedupStep) -> str:
        """Return the table of a dedup step."""
        looks = step.perceptual and [self.signatures, step.perceptual.distance]
        means = step.semantic and [self.annotations(self.embedder(step)), step.semantic.similarity]
        meaning = [self.clips, DUPLICATES_MEANING, step.exact, looks, means]
        if step.captions is not None:
            meaning.append([self.annotations(self.captioner(step)), step.captions.model_dump()])
        return f"{step.table}@{fingerprint(meaning)}"

    def captioner(self, step: DedupStep) -> Annotation:
        """Return the step whose captions a dedup step compares."""
        assert step.captions is not None
        shown = {column.name: earlier for earlier in self.before(step) for column in earlier.shown.values()}
        return shown[step.captions.caption]

    def dedup(self, before: Any = None) -> DedupStep | None:
        """Return the dedup step that comes before a step, None where there is none; any before ``None``."""
        place = next((number for number, other in enumerate(self.steps) if other is before), len(self.steps))
        return next((step for step in self.steps[:place] if isinstance(step, DedupStep)), None)

    @property
    def runs_own_code(self) -> bool:
        """Whether a scorer or captioner is the user's own."""
        return any(isinstance(step.spec, OwnSpec) for step in self.before(None))

    def before(self, step: Any) -> list[Annotation]:
        """Return the scorers and captioners that come before a step; all of them before ``None``."""
        place = next((number for number, other in enumerate(self.steps) if other is step), len(self.steps))
        return [earlier for earlier in self.steps[:place] if isinstance(earlier, Annotation)]

    def apart_from_manifests(self) -> frozenset[str]:
        """Return the tables of those scorers and captioners that read no manifest, nor what follows from one."""
        following, apart = {"manifest", "split"}, set()
        for step in self.before(None):
            if any(name in following or name.startswith("manifest.") for name in step.spec.needs):
                following |= {column.name for column in step.shown.values()}
            else:
                apart.add(self.annotations(step))
        return frozenset(apart)

    def tables(self) -> dict[str, str]:
        """Return the table of each step by name, in order."""
        named = {"observe": self.observations, "cut": self.clips}
        for step in self.steps:
            if isinstance(step, Annotation):
                named[step.name] = self.annotations(step)
            elif isinstance(step, DedupStep):
                if step.perceptual is not None:
                    named[f"{step.name}.signatures"] = self.signatures
                named[step.name] = self.duplicates(step)
            elif isinstance(step, SelectStep):
                named[f"select.{step.name}"] = f"selections/{step.name}"
        return named


CLIPS_MEANING = 2  # raised when the code changes how spans follow from cuts
DUPLICATES_MEANING = 1  # raised when the code changes which clips are copies, or how far apart they are


# ---- reading --------------------------------------------------------------------------------------------------------


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def path_of(named: str) -> Path:
    """Return the file of a built-in recipe, or the YAML file that ``named`` is. Raises ``RecipeError`` for neither."""
    built_in = RECIPES / f"{ALIASES.get(named, named)}.yaml"
    if built_in.exists():
        return built_in
    if not named.endswith((".yaml", ".yml")):
        raise RecipeError(f"no recipe {named!r}{offered(named, [*recipe_names(), *ALIASES, 'FILE.yaml'])}")
    if not Path(named).exists():
        raise RecipeError(f"recipe {named}: no such file")
    return Path(named)


def load_recipe(named: str | CurationRecipe, overrides: Sequence[str] = ()) -> CurationRecipe:
    """Load a built-in recipe by name, or one from a YAML file, with ``NAME.KEY=VALUE`` overrides; a
    ``CurationRecipe`` is taken as it is. Raises ``RecipeError``."""
    if isinstance(named, CurationRecipe):
        return parse_recipe(named.source, overrides, where=named.name) if overrides else named
    path = path_of(named)
    try:
        data = read_yaml(path.read_text(encoding="utf-8"), f"recipe {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {error}") from None
    return parse_recipe(data, overrides, where=str(named), folder=path.parent)


def parse_recipe(
    data: Any,
    overrides: Sequence[str] = (),
    where: str = "recipe",
    folder: Path | None = None,
    *,
    recorded: bool = False,
) -> CurationRecipe:
    """Check plain data as a whole. ``folder``: of the recipe, to which the files of own scorers and of prompts are relative.

    ``recorded``: it is a dataset's record, which may name only such own scorers as the user named before, and no file of a
    prompt: it has the texts.
    """
    if not isinstance(data, dict) or not isinstance(data.get("steps"), list):
        raise RecipeError(f"recipe {where}: not a mapping with name and steps")
    if extra := sorted(set(data) - {"name", "steps"}):
        raise RecipeError(f"recipe {where}: unknown key {extra[0]!r}{offered(str(extra[0]), ('name', 'steps'))}")
    data = json.loads(json.dumps(data, default=str))
    for override in overrides:
        apply_override(data["steps"], override)
    notes: list[str] = []
    context = {"folder": folder or Path.cwd(), "notes": notes, "recorded": recorded}
    steps = linked([_step(entry, context) for entry in data["steps"]], where)
    check_steps(steps, where)
    for entry, step in zip(data["steps"], steps, strict=True):
        if isinstance(step, Annotation):
            _record(entry, step)
    return CurationRecipe(name=str(data.get("name") or Path(where).stem), steps=steps, source=data, notes=tuple(notes))


def _record(entry: dict[str, Any], step: Annotation) -> None:
    """Make the raw step such that it means the same wherever and whenever it is read: own scorers have their whole path, and
    prompts their text."""
    if isinstance(step.spec, OwnSpec):
        entry.update(step_data(step))
    elif texts := prompt_texts(step.spec):
        (body,) = entry.values()
        holder, table = SPECS[kind_of_step(step)]
        name = kind_of(step.spec, table)
        values = body[holder][name] if isinstance(body[holder], dict) else {}
        body[holder] = {name: {**values, **texts}}


def _step(entry: Any, context: dict[str, Any]) -> Step:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise RecipeError(f"step={entry!r}: must be one of {', '.join(STEPS)} with its keys")
    ((kind, body),) = entry.items()
    if kind not in STEPS:
        raise RecipeError(f"unknown step {kind!r}{offered(str(kind), STEPS)}")
    if not isinstance(body or {}, dict):
        raise RecipeError(f"step {kind}={body!r}: its keys must be a mapping")
    for key in body or {}:
        if key not in STEPS[kind].model_fields:
            raise RecipeError(f"unknown key {key!r} in step {kind}{offered(str(key), STEPS[kind].model_fields)}")
    try:
        step: Step = STEPS[kind].model_validate(body or {}, context=context)
    except ValidationError as error:
        raise RecipeError(f"step {kind}: {format_error(error, keys_of(STEPS[kind]))}") from None
    return step
