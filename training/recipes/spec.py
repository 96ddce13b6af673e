"""The values of a training recipe check themselves: the types say what is allowed, and an error is one line."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from dailies.curation.config import format_error, keys_of
from dailies.curation.errors import RecipeError

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Strict: a string is no number, a bool no int, a list no tuple; an int is taken for a float and becomes one."""

Count = Annotated[int, Gt(0)]
Index = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
ProperFraction = Annotated[float, Ge(0), Lt(1)]
LogSigma = Annotated[float, Ge(-20), Le(20)]  # e^20 is 5e8
LogSigmaStd = Annotated[float, Ge(0), Le(20)]
Side = Annotated[int, Gt(0), MultipleOf(8)]  # px; pipelines of diffusers take multiples of 8
Size = tuple[Side, Side]  # width, height


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Spec:
    """A frozen value of a recipe. Making a wrong one, by ``dataclasses.replace`` too, raises ``RecipeError``.

    Rules over several fields stand in ``__post_init__`` and raise ``ValueError`` with ``FIELD=VALUE: what is wrong``.
    """

    @classmethod
    def label(cls, values: dict[str, Any]) -> str:
        """Return what an error names before the field. ``values``: what the value is made of, as it was passed."""
        return ""

    @model_validator(mode="wrap")
    @classmethod
    def _one_line(cls, values: Any, handler: ModelWrapValidatorHandler[Spec]) -> Spec:
        try:
            return handler(values)
        except ValidationError as error:
            message = format_error(error, keys_of(cls))
        except RecipeError as error:  # of a value within this one
            message = str(error)
        passed = values if isinstance(values, dict) else getattr(values, "kwargs", None) or {}
        raise RecipeError(cls.label(passed) + message)
