"""The base of all tables of the settings, and the kinds of values they share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema
from pydantic_core import PydanticCustomError

NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class Section(BaseModel):
    """Base of all tables: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        raise PydanticCustomError("one_line", "it holds a line break or another control character")
    return text


def _utf8(text: str) -> str:
    """No system call takes a text with a zero byte, and no JSON one with half a character."""
    if re.search(r"[\x00\ud800-\udfff]", text):
        raise PydanticCustomError("utf8", "it holds a zero byte or half a character")
    return text


def _portable(value: JsonValue) -> JsonValue:
    """What every JSON parser takes: finite numbers, whole characters."""
    nested: list[JsonValue] = [value]
    while nested:
        one = nested.pop()
        if isinstance(one, float) and not math.isfinite(one):
            raise PydanticCustomError("finite", "it holds a number that is not finite, which JSON cannot say")
        if isinstance(one, str):
            _utf8(one)
        elif isinstance(one, Mapping):
            nested += [*one, *one.values()]
        elif isinstance(one, list):
            nested += one
    return value


OneLine = Annotated[str, AfterValidator(_one_line)]
"""A text without line breaks and control characters."""
Word = Annotated[str, AfterValidator(_utf8), Field(min_length=1, max_length=4096)]
"""A word of a command."""
Json = Annotated[JsonValue, AfterValidator(_portable), WithJsonSchema({})]
"""Anything JSON can say."""
Name = Annotated[str, Field(pattern=NAME)]
"""The name of a line or of a kind of jobs."""
