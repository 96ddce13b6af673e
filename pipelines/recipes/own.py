"""Own scorers and captioners: a class of the user's, named as ``FILE.py:CLASS`` in a recipe or handed in as an object.

The class is a dataclass whose fields are its parameters, or has none. It needs ``columns`` and ``open()`` as
``dailies.curation.scorers.Scorer`` says; what else it lacks has a default. Its file stands alone: workers make the class from
the file's text, which travels with the spec, so that it need not lie on their machines and cannot change under a run.
The file is code, and naming it runs it; a name in a dataset's record does not (``dailies.pipelines.recipes.own_files``).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from dailies.curation.chat import PromptText, plain_prompt
from dailies.curation.config import did_you_mean, format_error, keys_of, offered
from dailies.curation.errors import Defect, OwnCode, RecipeError, SourceError, item_error, located, own_code
from dailies.curation.schema import digest
from dailies.curation.types import Evidence, Resources
from dailies.pipelines.recipes import own_files

REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")

_handed_in: dict[str, type[Any]] = {}
"""Classes that lie in no file of their own, by reference: what this process writes down of them it can read again."""


@dataclass(frozen=True, kw_only=True)
class OwnSpec:
    """A user's own scorer or captioner, as it stands in a recipe and travels to workers.

    Args:
        reference: ``FILE.py:CLASS`` with the whole path; ``MODULE.CLASS`` of a class that lies in no file of its own.
        source: text of that file, or of the class; empty where there is none.
        parameters: the values of the class's fields, as plain data.
        live: the object, where one was handed in.
    """

    reference: str
    source: str = field(repr=False)
    parameters: Mapping[str, Any]
    live: Any = field(default=None, repr=False, compare=False)

    @property
    def spec(self) -> Any:
        """The scorer or captioner itself."""
        if self.live is not None:
            return self.live
        with own_code(self.reference, self.file):
            return build(_class(self.reference, self.source), self.parameters, self.reference)

    def __getstate__(self) -> dict[str, Any]:
        # A worker makes the object anew where it can: it may not have the module that the class is from.
        return self.__dict__ | ({"live": None} if REFERENCE.fullmatch(self.reference) else {})

    @property
    def kind(self) -> str:
        """The class's name as a step's: ``BrightScorer`` is ``bright_scorer``."""
        return kind_name(self.reference)

    @property
    def file(self) -> str | None:
        """The class's file, where it lies in one."""
        match = REFERENCE.fullmatch(self.reference)
        return match["file"] if match else None

    @property
    def identity(self) -> str:
        stands_for = f"{Path(self.file).stem}.{self.reference.rpartition(':')[2]}" if self.file else self.reference
        return str(self._asked("identity", stands_for))

    @property
    def code(self) -> str | None:
        """sha256 of the source, where no ``identity`` and ``meaning`` of the class say what its numbers mean."""
        return None if hasattr(self.spec, "identity") else hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def meaning(self) -> int:
        return int(self._asked("meaning", 1))

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        return tuple(self._asked("columns", ()))

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(self._asked("needs", ()))

    @property
    def needs_frames(self) -> bool:
        return bool(self._asked("needs_frames", True))

    @property
    def requires(self) -> tuple[str, ...]:
        return tuple(self._asked("requires", ()))

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self._asked("models", ()))

    @property
    def resources(self) -> Resources:
        resources: Resources = self._asked("resources", Resources())
        return resources

    @property
    def bundle(self) -> int:
        return int(self._asked("bundle", 1))

    def weights(self) -> str | None:
        weights = self._asked("weights", None)
        with own_code(f"{self.reference}: weights()", self.file):
            return None if weights is None else weights()

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        """Open the scorer. Raises ``RecipeError`` with the place in its file where its own code fails."""
        with ExitStack() as stack:
            with own_code(f"{self.reference}: open()", self.file):
                call: Callable[[Sequence[Evidence]], pa.Table] = stack.enter_context(self.spec.open())
            yield call
            with own_code(f"{self.reference}: open()", self.file):
                stack.close()

    def item_error(self, error: Exception) -> SourceError:
        """Return what is raised on one clip as what its row keeps: what is no reason of the clip is this class's own.

        Raises what is no clip's fault, as ``errors.item_error`` does.
        """
        reason = item_error(error)
        return OwnCode(located(error, self.file)) if isinstance(reason, Defect) else reason

    def _asked(self, name: str, default: Any) -> Any:
        with own_code(f"{self.reference}: {name}", self.file):
            return getattr(self.spec, name, default)

    def replaced(self, **changes: Any) -> OwnSpec:
        """Return the spec with other values of parameters."""
        live = None if self.live is None else replace(self.live, **changes)
        return replace(self, parameters={**self.parameters, **changes}, live=live)


def own_from_file(reference: str, parameters: Mapping[str, Any], context: Mapping[str, Any]) -> OwnSpec:
    """Read ``FILE.py:CLASS``, where FILE is relative to the context's ``folder`` or else to the working directory, and run it.

    Where the context says ``recorded``, the reference is a record's and not the user's word, so only a file that the user named
    before is run.
    Raises ``RecipeError`` where there is no such file or class, or the class takes no such parameters.
    """
    folder = Path(context.get("folder", "."))
    match = REFERENCE.fullmatch(reference)
    if match is None:
        cls = _handed_in[reference]
        return own_from_object(build(cls, parameters, reference, context))
    places = [place / Path(match["file"]).expanduser() for place in (folder, Path.cwd())]
    file = next((place.resolve() for place in places if place.is_file()), None)
    if file is None:
        raise RecipeError(f"{reference}: no such file; it is looked for in {folder} and in {Path.cwd()}")
    if context.get("recorded") and not own_files.known(file):
        raise RecipeError(
            f"{reference}: the dataset names this file, which would be run, and you did not yet; if you trust it, curate"
            " with a recipe of yours that names it"
        )
    own_files.remember(file)
    source = file.read_text(encoding="utf-8")
    spec = OwnSpec(reference=f"{file}:{match['name']}", source=source, parameters=parameters)
    with own_code(reference, str(file)):
        own = build(_class(spec.reference, source), parameters, reference, context)
    _check(own, reference)
    return replace(spec, parameters={**parameters, **prompt_texts(own)})  # its workers may not have the files


def own_from_object(own: Any) -> OwnSpec:
    """Wrap an object. Raises ``RecipeError`` where it is no scorer, or has parameters that a record cannot hold."""
    cls = type(own)
    reference, source = f"{cls.__module__}.{cls.__qualname__}", _text(cls)
    _check(own, reference)
    parameters = _parameters(own, reference)
    file = _file(cls)
    if file is not None:
        own_files.remember(file)
        reference, source = f"{file}:{cls.__name__}", file.read_text(encoding="utf-8")
    else:
        _handed_in[reference] = cls
    return OwnSpec(reference=reference, source=source, parameters=parameters, live=own)


def kind_name(reference: str) -> str:
    """Return the class's name in small letters, ``bright_scorer`` for ``FILE.py:BrightScorer``, or a table's name."""
    name = re.split(r"[.:]", reference)[-1]
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).strip("_").lower()


def is_own(reference: str) -> bool:
    """Return whether a name in a recipe stands for a class of the user's."""
    return reference in _handed_in or REFERENCE.fullmatch(reference) is not None


def build(
    cls: type[Any], parameters: Mapping[str, Any], where: str, context: Mapping[str, Any] = MappingProxyType({})
) -> Any:
    """Make a spec of a class and its parameters by name; ``where`` names it in errors.

    ``context``: of the validation, as ``specs.spec_of`` has it. A parameter may go by the name that its field's metadata calls
    ``formerly``; then a line about it joins the context's ``notes``.
    Raises ``RecipeError`` for an unknown name and for a value that is not allowed.
    """
    notes = context.get("notes")
    former = {f.metadata["formerly"]: f.name for f in _fields(cls) if "formerly" in f.metadata}
    allowed = [f.name for f in _fields(cls)]
    renamed: dict[str, Any] = {}
    for key, value in parameters.items():
        name = former.get(key, key)
        if name not in allowed:
            raise RecipeError(f"unknown parameter {key!r} of {where}{offered(key, allowed) or '; it has none'}")
        if name in renamed:
            old = next(old for old, new in former.items() if new == name)
            raise RecipeError(f"{where}: {old} and {name} are the same parameter; leave {old} out")
        if key != name and notes is not None:
            notes.append(f"{where}: {key} is called {name} now")
        renamed[name] = value
    if not is_dataclass(cls):
        return cls()
    try:
        return TypeAdapter(cls).validate_python(renamed, context=dict(context))
    except ValidationError as error:
        raise RecipeError(f"{where}: {format_error(error, keys_of(cls))}") from None


def prompt_texts(spec: Any) -> dict[str, Any]:
    """Return those parameters of a dataclass that are texts of prompts, as a record has them."""
    named = {f.name: getattr(spec, f.name) for f in _fields(type(spec))}
    return {name: plain_prompt(value) for name, value in named.items() if isinstance(value, PromptText)}


# ---- classes --------------------------------------------------------------------------------------------------------


def _fields(cls: type[Any]) -> list[Any]:
    return [f for f in fields(cls) if f.init] if is_dataclass(cls) else []


def _parameters(own: Any, reference: str) -> dict[str, Any]:
    if not is_dataclass(own):
        if getattr(own, "__dict__", None):
            raise RecipeError(f"{reference}: not a dataclass; make it one, so that its parameters can be written down")
        return {}
    parameters = {f.name: plain_prompt(getattr(own, f.name)) for f in _fields(type(own))}
    for name, value in parameters.items():
        try:
            json.dumps(value)
        except TypeError:
            raise RecipeError(f"{reference}: {name}={value!r}: not plain data, and so cannot be written down") from None
    return parameters


def _check(own: Any, reference: str) -> None:
    with own_code(reference, reference.rpartition(":")[0] or None):
        missing = [name for name in ("columns", "open") if not hasattr(own, name)]
    if missing:
        raise RecipeError(f"{reference}: has no {missing[0]}; a scorer or captioner has columns and open()")


def _file(cls: type[Any]) -> Path | None:
    """Return the class's file, if it can be run by itself: not for a running script, a notebook or a package."""
    if cls.__module__ == "__main__" or "." in cls.__module__ or "." in cls.__qualname__:
        return None
    try:
        file = inspect.getsourcefile(cls)
    except TypeError:
        return None
    return Path(file).resolve() if file and Path(file).is_file() else None


def _text(cls: type[Any]) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):  # typed into an interpreter
        return ""


def _class(reference: str, source: str) -> type[Any]:
    match = REFERENCE.fullmatch(reference)
    assert match is not None, reference
    module = _module(match["file"], source)
    cls = getattr(module, match["name"], None)
    if not isinstance(cls, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise RecipeError(f"{reference}: no such class in the file{did_you_mean(match['name'], classes)}")
    return cls


@lru_cache(maxsize=64)
def _module(file: str, source: str) -> ModuleType:
    """Return the module that a file's text makes, once a process."""
    module = ModuleType(f"dailies_own_{digest(file, source)}")
    module.__file__ = file
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        with own_code(f"{file}: cannot be run", file):
            exec(compile(source, file, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module
