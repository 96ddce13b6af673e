"""Captions as fields, and what a caption may say of the camera."""

from __future__ import annotations

import json
import time

import pytest

from dailies.curation.camera_words import against_camera, camera_phrase
from dailies.curation.caption_fields import (
    FIELDS,
    LONGEST,
    CaptionFields,
    instruction,
    json_schema,
    parse_fields,
    serialize,
)
from dailies.curation.errors import Malformed

DOG = CaptionFields(
    subject="a brown dog",
    action="runs after a ball",
    setting="on a beach",
    camera="pans right",
    style="film",
    light="low sun",
    text="Beach Day",
    mood="cheerful",
    details="Waves break behind it.",
)


def test_schema_prompt_and_caption_have_the_same_fields() -> None:
    schema = json_schema()
    assert list(schema["properties"]) == schema["required"] == list(FIELDS) == list(json.loads(DOG.to_json()))
    assert schema["additionalProperties"] is False
    for name, doc in FIELDS.items():
        assert f'"{name}": {doc}' in instruction()


def test_the_serializer_s_first_version_never_changes() -> None:
    assert serialize(DOG) == (
        "A brown dog runs after a ball, on a beach. Waves break behind it. Camera: pans right. Style: film. "
        'Light: low sun. Mood: cheerful. Text on screen: "Beach Day".'
    )
    assert serialize(CaptionFields(subject="a cat")) == "A cat."
    assert serialize(CaptionFields(setting="a forest", light="fog!")) == "A forest. Light: fog!"
    assert serialize(CaptionFields()) == ""
    with pytest.raises(ValueError, match="caption format 2: not known"):
        serialize(DOG, version=2)


@pytest.mark.parametrize(
    "around",
    ["{}", "```json\n{}\n```", "Here is the JSON:\n{}\nI hope that it helps!", "  {}  ", "{{not JSON}} {}"],
)
def test_an_answer_is_read_with_what_stands_around_it(around: str) -> None:
    assert parse_fields(around.format(DOG.to_json())) == (DOG, ())


def test_answers_that_go_past_the_schema() -> None:
    answer = {"subject": ["a dog", "a ball"], "mood": None, "action": " runs \n fast ", "score": 3}
    fields, strange = parse_fields(json.dumps(answer))
    assert fields == CaptionFields(subject="a dog, a ball", action="runs fast")
    assert strange == ("score",)
    assert CaptionFields().empty
    assert not fields.empty


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("a dog on a beach", "no JSON object"),
        ("", "no JSON object"),
        ('["a dog"]', "no JSON object"),
        ('{"subject": "a dog"', "no JSON object"),
        ("{" * 100_000, "no JSON object"),
        ('{"subject": ' + "[" * 100_000, "no JSON object"),
        ('{"subject": NaN}', "no JSON object"),
        ('{"subject": 3}', "subject is int, and not a text"),
        ('{"subject": {"name": "a dog"}}', "subject is dict"),
        ('{"details": "' + "a" * (LONGEST + 1) + '"}', "details has 2,001 characters"),
    ],
)
def test_an_answer_without_fields_is_malformed(answer: str, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse_fields(answer)


@pytest.mark.parametrize(
    ("label", "phrase"),
    [
        ("static", "stands still"),
        ("pan left", "pans left"),
        ("pan right, zoom in", "pans right and zooms in"),
        ("handheld", "shakes"),
        ("unclear", ""),
        (None, ""),
    ],
)
def test_the_camera_s_field_is_what_was_measured(label: str | None, phrase: str) -> None:
    assert camera_phrase(label) == phrase
    assert not against_camera(f"A dog runs. The camera {phrase}.", label)


@pytest.mark.parametrize(
    ("text", "label", "against"),
    [
        ("A static camera shows a dog.", "pan left", True),
        ("A static camera shows a dog.", "static", False),
        ("A static camera shows a dog.", "unclear", False),
        ("A static camera shows a dog.", None, False),
        ("The camera remains completely still.", "zoom in", True),
        ("The camera does not move.", "handheld", True),
        ("a still shot of a lake", "tilt up", True),
        ("a still lake", "tilt up", False),
        ("The camera pans left over a lake.", "pan right", True),
        ("The camera pans left over a lake.", "pan left, zoom in", False),
        ("The camera is slowly panning to the left.", "pan right", True),
        ("The camera zooms in.", "pan right", False),  # it may do both, and one is small
        ("The camera zooms in.", "static", True),
        ("The camera tilts down.", "tilt", False),  # up and down, measured
        ("The camera tilts down.", "tilt up, pan left", True),
        ("a hand-held shot", "static", True),
        ("two pans left on a stove", "static", False),
        ("A dog runs left.", "pan right", False),
        ("A close-up shot of a pan on a stove.", "static", False),
        ("The camera follows a man with a frying pan.", "static", False),
        ("The camera does not zoom in.", "static", False),
        ("The camera never pans.", "static", False),
        ("The camera static.", "pan right", True),
        ("The camera fixed, eye level.", "pan right", True),
        ("Camera: static.", "zoom in", True),
        ("A static wide shot of a street.", "pan left", True),
        ("The camera doesn\u2019t move.", "pan left", True),
        ("The camera is moving.", "static", True),
        ("The camera is handheld.", "static", True),
        ("The camera moves to the left.", "static", True),
        ("The camera moves left.", "pan right", True),
        ("The camera moves left.", "pan left", False),
        ("The camera is panning right.", "pan left", True),
        ("The camera slowly moves to the left.", "pan right", True),
        ("The camera shows a crowd that moves left.", "static", False),
        ("The camera pan left.", "pan right", True),
        ("The camera still pans left.", "pan left", False),
        ("The camera stands still while the crowd moves left.", "static", False),
    ],
)
def test_a_caption_against_the_measured_camera(text: str, label: str | None, against: bool) -> None:
    assert against_camera(text, label) is against


@pytest.mark.parametrize(
    "answer", ['{"subject": {"subject": "a dog"}', '{"a": 1, "b": {"subject": "a dog"}; }', '{"a":' * 17_000]
)
def test_what_is_within_a_broken_object_is_no_answer_and_costs_no_time(answer: str) -> None:
    began = time.perf_counter()
    with pytest.raises(Malformed, match="no JSON object"):
        parse_fields(answer)
    assert time.perf_counter() - began < 1


def test_signs_that_json_escapes_are_harmless() -> None:
    answer = r'{"subject": "a \ud83d dog", "action": "\u001b[2J runs", "setting": ["\u200b", "a\u202e hill"], "mood": "\u0007"}'
    fields, _ = parse_fields(answer)
    assert fields == CaptionFields(subject="a ? dog", action="[2J runs", setting="a hill")
    fields.to_json().encode()
