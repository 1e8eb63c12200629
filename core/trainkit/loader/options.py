"""Options from signatures: the keyword parameters of a class or factory as a pydantic model, with help and types."""

from __future__ import annotations

import inspect
import re
import types
import typing
import warnings
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from trainkit.inner import Inner

Target = Callable[..., Any]

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "a multiple of", "pattern": "of the form"}
_LENGTHS = {"min_length": "at least", "max_length": "at most"}


class Required:
    """Stand for the default of an option that has none."""

    def __str__(self) -> str:
        return "required"


REQUIRED = Required()


class OptionRow(NamedTuple):
    """Describe an option for people.

    Args:
        name: the option.
        type: its type with bounds, in words.
        default: its default; REQUIRED where a value is needed.
        help: what it does.
    """

    name: str
    type: str
    default: Any
    help: str


class InnerOption(NamedTuple):
    """Describe an option that takes another component.

    Args:
        kind: kind of that component.
        may_be_none: whether it can do without.
        beside: whether the options of that component stand beside those of the outer one.
    """

    kind: str
    may_be_none: bool
    beside: bool = False


def parameters(target: Target) -> dict[str, inspect.Parameter]:
    """Return the parameters that can be passed by keyword; none for a target that shows no signature."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return {}
    return {name: p for name, p in signature.parameters.items() if p.kind in _NAMED}


def takes_any_keyword(target: Target) -> bool:
    """Return whether a target hands unnamed keywords on, or shows no signature at all."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return True
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())


def types_of(target: Target, names: Iterable[str]) -> dict[str, Any]:
    """Return the type of each parameter; Any where there is none, or where it cannot be resolved."""
    function: Any = target
    if inspect.isclass(target):
        function = target.__init__ if target.__init__ is not object.__init__ else target.__new__
    function = inspect.unwrap(getattr(function, "func", function))
    try:
        found = typing.get_type_hints(function, include_extras=True)
    except Exception:  # an annotation is foreign code; one that fails must not hide the others
        found = _one_by_one(function)
    return {name: found.get(name, Any) for name in names}


def _one_by_one(function: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        alone: Any = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            found |= typing.get_type_hints(alone, getattr(function, "__globals__", {}), include_extras=True)
        except Exception:  # noqa: S112 - it is a name for type checkers only: Any stands for it
            continue
    return found


def options_model(title: str, target: Target, without: Iterable[str]) -> type[BaseModel]:
    """Return the pydantic model of a target's options.

    Args:
        title: name of the model.
        target: class or factory.
        without: parameters that the core passes in itself.
    """
    found = {name: p for name, p in parameters(target).items() if name not in set(without)}
    kinds = types_of(target, found)
    fields = {_field_name(name): _field(name, kinds[name], p) for name, p in found.items()}
    try:
        return _model(title, fields)
    except Exception:  # a type is foreign code; one without a usable schema must not cost the others their checks
        return _model(title, {name: _checkable(title, name, field) for name, field in fields.items()})


def _model(title: str, fields: dict[str, Any]) -> type[BaseModel]:
    with warnings.catch_warnings():
        # What pydantic thinks of a plugin's annotations is of no use to the one who only names the plugin.
        warnings.simplefilter("ignore")
        return create_model(title, __config__=_CONFIG, **fields)


def _field(name: str, annotation: Any, parameter: inspect.Parameter) -> tuple[Any, Any]:
    default = ... if parameter.default is inspect.Parameter.empty else parameter.default
    return annotation, Field(default, alias=name)


def _field_name(option: str) -> str:
    # Pydantic reserves its own names and those that begin with an underscore; the alias keeps the option's.
    return f"option_{option.strip('_')}" if option.startswith("_") or hasattr(BaseModel, option) else option


def _checkable(title: str, name: str, field: tuple[Any, Any]) -> tuple[Any, Any]:
    try:
        _model(title, {name: field})
    except Exception:  # see options_model
        return Any, field[1]
    return field


def option_rows(model: type[BaseModel], help_texts: dict[str, str]) -> list[OptionRow]:
    """Return the rows of a model's options, in the order of the signature."""
    rows = []
    for field in model.model_fields.values():
        name = field.alias or ""
        default = REQUIRED if field.is_required() else field.default
        rows.append(OptionRow(name, type_text(_annotation(field)), default, help_texts.get(name, "")))
    return rows


def _annotation(field: FieldInfo) -> Any:
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def inner_options(model: type[BaseModel]) -> dict[str, InnerOption]:
    """Return the options of a model that take another component, by name."""
    found = {field.alias or "": _inner_of(_annotation(field)) for field in model.model_fields.values()}
    return {name: inner for name, inner in found.items() if inner is not None}


def _inner_of(annotation: Any) -> InnerOption | None:
    """Return what a type that stands for a component takes; None for any other type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        mark = next((item for item in arguments[1:] if isinstance(item, Inner)), None)
        return InnerOption(mark.kind, False, mark.beside) if mark is not None else _inner_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        found = next((inner for argument in arguments if (inner := _inner_of(argument)) is not None), None)
        return found._replace(may_be_none=type(None) in arguments) if found is not None else None
    return None


def type_text(annotation: Any) -> str:
    """Return a type with its bounds as people read it, as 'float > 0' or 'int or none'."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        if mark := next((item for item in arguments[1:] if isinstance(item, Inner)), None):
            return f"{mark.kind} by name"
        bounds = [text for item in arguments[1:] for text in _bounds(item)]
        return " ".join([type_text(arguments[0]), " and ".join(bounds)]).strip()
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(argument) for argument in arguments)
    if annotation is Any:
        return "any"
    if annotation is None or annotation is type(None):
        return "none"
    if annotation is Ellipsis:
        return "..."
    if origin is not None and arguments and inspect.isclass(origin) and not isinstance(arguments[0], list):
        return f"{origin.__name__}[{', '.join(type_text(argument) for argument in arguments)}]"
    return getattr(annotation, "__name__", None) or str(annotation).replace("typing.", "")


def _bounds(item: Any) -> list[str]:
    if isinstance(item, FieldInfo):
        return [text for part in item.metadata for text in _bounds(part)]
    # A pattern and the like lie in the instance's dict, the bounds of annotated_types in slots.
    found = [f"{words} {value}" for name, words in _BOUNDS.items() if (value := getattr(item, name, None)) is not None]
    lengths = [f"{words} {value} long" for name, words in _LENGTHS.items() if (value := getattr(item, name, None))]
    return found + lengths


def help_texts(target: Target) -> dict[str, str]:
    """Return the help of each parameter: the `Args:` of the docstring of a class and of its constructor."""
    sources = [target.__init__, target] if inspect.isclass(target) else [getattr(target, "func", target)]
    texts: dict[str, str] = {}
    for source in sources:
        texts |= parse_arguments(inspect.getdoc(source) or "")
    return texts


def parse_arguments(docstring: str) -> dict[str, str]:
    """Return name -> text of the `Args:` section of a Google-style docstring, each text in one line."""
    lines = iter(docstring.splitlines())
    if not any(line.strip() in ("Args:", "Arguments:") for line in lines):
        return {}
    texts: dict[str, str] = {}
    name, indent = "", None
    for line in lines:
        stripped = line.strip()
        depth = len(line) - len(line.lstrip())
        if not stripped:
            continue
        if depth == 0:
            break
        indent = depth if indent is None else indent
        match = re.match(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)", stripped) if depth <= indent else None
        if match:
            name = match[1]
            texts[name] = match[2]
        elif name:
            texts[name] = f"{texts[name]} {stripped}".strip()
    return texts
