"""Notebook parameters: what a parameters cell declares, and whether given values fit it.

Papermill only warns about a parameter that a notebook does not know, ignores declared types, and reads `1e-3`
as text. The notebooks and the command line therefore share these checks.
"""

import ast
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sr_utils.errors import UserError

_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "None": "null"}
_EXAMPLES = {"int": "3", "float": "0.001", "bool": "true", "str": "'text'", "None": "null"}


@dataclass(frozen=True)
class Parameter:
    """One assignment of a parameters cell.

    `kinds` are the types it accepts, by name, in the order written (`("float", "None")`); a parameter that
    neither has an annotation nor a literal default accepts anything and has none.
    """

    name: str
    kinds: tuple[str, ...]
    default: Any = None

    def accepts(self, value: Any) -> bool:
        """Whether `value` is of one of the kinds; an integer is a float too, a boolean is no integer."""
        return not self.kinds or any(_fits(value, kind) for kind in self.kinds)


def read_parameters(source: str) -> dict[str, Parameter]:
    """The parameters that a cell's source declares: its assignments to plain names, annotated or not.

    Of a name assigned twice the first counts. Source that is not Python declares nothing.
    """
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return {}
    declared: dict[str, Parameter] = {}
    for statement in statements:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                # A quoted annotation is read as what it quotes.
                text = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
                kinds = tuple(kind.strip() for kind in str(text).split("|"))
                declared.setdefault(name, Parameter(name, kinds, _literal(value)))
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                default = _literal(value)
                kinds = () if default is None else (type(default).__name__,)
                declared.setdefault(name, Parameter(name, kinds, default))
    return declared


def check_types(values: Mapping[str, Any], declared: Mapping[str, Parameter], *, where: str) -> None:
    """Hold values to the declared types; a name that is not declared passes.

    Raises
    ------
    UserError
        naming the parameter, the notebook `where` it was given, and the mend.
    """
    for name, value in values.items():
        if name in declared and not declared[name].accepts(value):
            raise UserError(_mistyped(declared[name], value, where))


def parse_values(settings: Iterable[str], declared: Mapping[str, Parameter], *, where: str) -> dict[str, Any]:
    """Turn `name=value` texts into values of the declared types, so that `1e-3` is a number where one is due.

    Raises
    ------
    UserError
        a setting without `=`, an unknown name, or a text that cannot be of the declared type.
    """
    values = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise UserError(f"The setting '{setting}' of {where} has no '=': write it as name=value.")
        refuse_unknown(name, declared, what=f"parameter of {where}")
        values[name] = _parse(text, declared[name], where)
    return values


def check_range(owner: str, *, least: float, largest: float = math.inf, **values: Any) -> None:
    """Hold numbers to a range, both ends included; whole numbers are meant unless ``least`` or ``largest`` is a float.

    Raises
    ------
    UserError
        naming the parameter, its `owner` and the range.
    """
    kind = "float" if isinstance(least, float) or (isinstance(largest, float) and largest < math.inf) else "int"
    for name, value in values.items():
        if not _fits(value, kind) or not math.isfinite(value) or not least <= value <= largest:
            to = f" to {largest:g}" if largest < math.inf else " upwards"
            raise UserError(f"{name}={value!r} of {owner} must be {_WORDS[kind]} from {least:g}{to}.")


def check_switches(owner: str, **values: Any) -> None:
    """Hold values to true or false.

    Raises
    ------
    UserError
        naming the parameter and its `owner`.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise UserError(f"{name}={value!r} of {owner} must be true or false.")


def refuse_unknown(name: str, known: Iterable[str], *, what: str) -> None:
    """Raise a UserError that suggests the nearest name, unless `name` is one of `known`.

    `what` says what the name should have been: "profile", "parameter of 03_deflow_training".
    """
    known = list(known)
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    mend = f"did you mean '{nearest[0]}'?" if nearest else f"choose one of {', '.join(known)}."
    raise UserError(f"'{name}' is not a {what}: {mend}")


_NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
"""What `ast.literal_eval` raises for text that is no value."""


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else None
    except _NO_LITERAL:
        return None


def _fits(value: Any, kind: str) -> bool:
    match kind:
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "bool":
            return isinstance(value, bool)
        case "str":
            return isinstance(value, str)
        case "None":
            return value is None
    if kind.startswith(("list", "tuple")):
        return isinstance(value, list | tuple)
    return True


def _parse(text: str, parameter: Parameter, where: str) -> Any:
    for kind in parameter.kinds:
        if kind == "str":
            return text
        if kind in ("int", "float"):
            try:
                return {"int": int, "float": float}[kind](text)
            except ValueError:
                continue
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind == "None" and text.lower() in ("none", "null"):
            return None
    try:
        value = ast.literal_eval(text)
    except _NO_LITERAL:
        value = text
    if not parameter.accepts(value):
        raise UserError(_mistyped(parameter, value, where))
    return value


def _mistyped(parameter: Parameter, value: Any, where: str) -> str:
    example = _EXAMPLES.get(parameter.kinds[0], repr(parameter.default))
    wanted = " or ".join(_WORDS.get(kind, kind) for kind in parameter.kinds)
    return (
        f"The parameter {parameter.name} of {where} must be {wanted}, not {value!r}: "
        f"write it as {parameter.name}={example}, for instance."
    )
