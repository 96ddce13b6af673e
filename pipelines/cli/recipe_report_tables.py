"""A recipe resolved, what keeps it from running, and two recipes side by side are printed here."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from dailies.pipelines.cli.help import page_width
from dailies.pipelines.cli.recipe_tables import shown
from dailies.pipelines.cli.tables import DASH, counted, grid, near
from dailies.pipelines.cli.terminal import say, say_json, stdout
from dailies.zoo.units import megabytes

if TYPE_CHECKING:
    from dailies.pipelines.recipes.compare import RecipeComparison
    from dailies.pipelines.recipes.preflight import RecipeCheck, RecipeReport, StepNeeds
    from dailies.pipelines.recipes.weights import WeightsState

INLINE = 100  # columns of a mapping that stays on one line, as people write them


def print_recipe(report: RecipeReport, as_json: bool) -> None:
    """Print a recipe as YAML with comments: it is a recipe's file again."""
    if as_json:
        say_json(_report_row(report))
        return
    out = stdout()
    for line in (*_head(report), f"name: {report.name}", "steps:"):
        out.print(_painted(line), soft_wrap=True)
    for step, entry in zip(report.steps, report.recipe["steps"], strict=True):
        for line in (*_commented(_step_notes(step, report), "  "), *_yaml(entry)):
            out.print(_painted(line), soft_wrap=True)


def _painted(line: str) -> Text:
    return Text(line, style="dim" if line.lstrip().startswith("#") else "")


def _head(report: RecipeReport) -> Iterator[str]:
    yield from _commented([report.about] if report.about else [], "")
    yield from _commented([_total(report), *_downloads(report.downloads)], "")


def _total(report: RecipeReport) -> str:
    length = f"{report.clip_seconds:g}"
    total = f"Costs about {_seconds(report.seconds_per_clip)} of one core for a clip of {length} s"
    unmeasured = f", without what was not measured: {', '.join(report.unmeasured)}" if report.unmeasured else ""
    return f"{total}{unmeasured}."


def _downloads(states: Sequence[WeightsState]) -> list[str]:
    names = " and ".join(state.name for state in states)
    return [f"A run downloads {names}; how much that is, is not known here."] if states else []


def _step_notes(step: StepNeeds, report: RecipeReport) -> list[str]:
    notes = [step.about]
    if step.kind != "select":
        notes.append(_cost(step, report))
    if step.own_code is not None:
        notes.append(f"runs {step.own_code}")
    if step.extras:
        missing = f": {', '.join(step.missing)} {'is' if len(step.missing) == 1 else 'are'} not installed"
        notes.append(f"needs dailies[{','.join(step.extras)}]{missing if step.missing else ', installed'}")
    notes += [f"{state.key}: {_state(state)}" for state in step.weights]
    if step.gpus:
        notes.append(f"a worker gets {step.gpus:g} GPU")
    return ["; ".join(notes)]


def _cost(step: StepNeeds, report: RecipeReport) -> str:
    if step.seconds_per_clip is None:
        return "cost not measured"
    seconds = step.seconds_per_clip
    pace = f", {1 / seconds:.3g} clips/s a core" if seconds > 1e-4 else ""
    unknown = f", without {', '.join(step.cost.unknown)}" if step.cost.unknown else ""
    return f"{_seconds(seconds)} a clip of {report.clip_seconds:g} s{pace}{unknown}"


def _state(state: WeightsState) -> str:
    size = f" ({megabytes(state.bytes)})" if state.bytes else ""
    licence = f", under {state.licence}" if state.licence else ""
    if state.problem:
        return f"{state.name}: {state.problem}"
    place = {"built-in": "is built in", "file": "is here", "package": "is in its package"}.get(state.place, "is here")
    if not state.here and state.place == "package":
        return f"{state.name} is not installed{licence}"
    return f"{state.name} {place}{size}{licence}" if state.here else f"{state.name} is not here, and a run downloads it"


def _seconds(seconds: float) -> str:
    if seconds < 1e-4:
        return "under 0.1 ms"
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.1 else f"{seconds:.2g} s"


def _commented(notes: Sequence[str], indent: str) -> Iterator[str]:
    width = page_width() - len(indent) - 2
    for note in notes:
        for line in textwrap.wrap(note, width, break_long_words=False, break_on_hyphens=False):
            yield f"{indent}# {line}"


# ---- YAML -----------------------------------------------------------------------------------------------------------


def _yaml(entry: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a step: what is short stays on one line."""
    import yaml

    text = yaml.dump([entry], sort_keys=False, allow_unicode=True, default_flow_style=False, Dumper=_dumper())
    yield from textwrap.indent(text, "  ").rstrip("\n").split("\n")


def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes mappings and lists of values alone on one line, and indents lists as recipes have them."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

        def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
            flat = not any(isinstance(value, dict | list) for value in mapping.values())
            return super().represent_mapping(tag, mapping, flow_style=flat and len(str(mapping)) < page_width() - 24)

        def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
            flat = not any(isinstance(value, dict | list) for value in sequence)
            return super().represent_sequence(tag, sequence, flow_style=flat and len(str(sequence)) < page_width() - 24)

    return Dumper


# ---- check and diff -------------------------------------------------------------------------------------------------


def print_check(checked: RecipeCheck, as_json: bool) -> None:
    if as_json:
        row = None if checked.report is None else _report_row(checked.report)
        say_json({"name": checked.name, "ok": checked.ok, "problems": checked.problems, "report": row})
        return
    for problem in checked.problems:
        say(f"dailies: {problem}", err=True)
    if checked.report is None:
        return
    report = checked.report
    if checked.ok:
        say(f"recipe {checked.name} can run here: {counted(len(report.steps), 'step')}")
    lines = [*_downloads(report.downloads), _total(report)]
    lines += [f"Step {step.name} asks for {step.gpus:g} GPU a worker." for step in report.steps if step.gpus]
    for line in lines:
        stdout().print(Text(line))


def print_comparison(comparison: RecipeComparison, as_json: bool) -> None:
    if as_json:
        say_json(asdict(comparison) | {"same": comparison.same})
        return
    if comparison.same:
        say(f"recipes {comparison.a} and {comparison.b} are the same, but for their names")
        return
    out = stdout()
    table = grid()
    table.add_column("parameter", no_wrap=True)
    for heading in (comparison.a, comparison.b):
        table.add_column(near(heading), overflow="fold")
    for step in comparison.steps:
        if step.only is not None:
            has, none = f"step {step.kind}", DASH
            table.add_row(step.step, *((has, none) if step.only == "a" else (none, has)))
        for each in step.differences:
            table.add_row(each.key, shown(each.a) if each.in_a else DASH, shown(each.b) if each.in_b else DASH)
    out.print(table)
    if comparison.order:
        say("the steps that both have come in another order")


def _report_row(report: RecipeReport) -> dict[str, Any]:
    row = asdict(report)
    return row | {
        "steps": [each | {"cost": _cost_row(step)} for each, step in zip(row["steps"], report.steps, strict=True)],
        "seconds_per_clip": report.seconds_per_clip,
        "unmeasured": report.unmeasured,
        "downloads": [state.name for state in report.downloads],
    }


def _cost_row(step: StepNeeds) -> dict[str, Any]:
    return {"measured": [cost.model_dump() for cost in step.cost.measured], "unknown": list(step.cost.unknown)}
