"""The help of a command line: what, how much, where and on which machine, each flag with what it takes."""

import argparse
import dataclasses
import inspect
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

WHAT = "what"
GROUPS = (WHAT, "how much", "where", "machine")
WORDS = {int: "N", float: "X", str: "NAME", Path: "PATH"}
INDENT = 26


class _Formatter(argparse.HelpFormatter):
    """It doesn't break what is written with hyphens, such as flags."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        words = " ".join(text.split())
        return textwrap.fill(
            words, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        )  # fmt: skip

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """All names of a flag, and once what it takes."""
        taken = [action.metavar] if isinstance(action.metavar, str) and action.option_strings else []
        line = " ".join([", ".join(action.option_strings) or str(action.metavar), *taken])
        room = self._width - self._current_indent
        # choices too many for one line go on beneath the flag
        pieces = textwrap.wrap(line.replace(",", ", "), room, subsequent_indent="  ", break_on_hyphens=False)
        return line if len(line) <= room else f"\n{' ' * self._current_indent}".join(pieces)


def help_of(flags: type[Any], command: str) -> str:
    """The help of a dataclass of flags, as wide as the terminal.

    Classes may say in `GROUPED` which of their fields are not about what is computed, as names with spaces between by
    group, and in `EXAMPLES` which flags are worth a try, with words on each. Fields of the class itself stand before
    those of the classes that it derives from.
    """
    shown = _Formatter(prog=command, max_help_position=INDENT)
    shown.add_text(f"usage: {command} [FLAGS]")
    for paragraph in inspect.cleandoc(flags.__doc__ or "").split("\n\n"):
        shown.add_text(paragraph.replace("%", "%%"))
    actions = argparse.ArgumentParser(add_help=False)
    grouped = _grouped(flags)
    for group in GROUPS:
        shown.start_section(group)
        shown.add_arguments([_action(actions, flags, name) for name in _in_order(flags) if grouped[name] == group])
        shown.end_section()
    return shown.format_help().rstrip() + "\n" + "".join(_examples(flags, command))


def _grouped(flags: type[Any]) -> dict[str, str]:
    """The group of each field: the first that a class names for it, else what is computed."""
    found = {field.name: WHAT for field in dataclasses.fields(flags)}
    for kind in reversed(flags.__mro__):
        for group, names in vars(kind).get("GROUPED", {}).items():
            found |= dict.fromkeys(names.split(), group)
    return found


def _in_order(flags: type[Any]) -> list[str]:
    """The fields, those of the class itself before those of the classes that it derives from."""
    names = [name for kind in flags.__mro__ for name in inspect.get_annotations(kind)]
    known = {field.name for field in dataclasses.fields(flags)}
    return [name for name in dict.fromkeys(names) if name in known]


def _action(actions: argparse.ArgumentParser, flags: type[Any], name: str) -> argparse.Action:
    field = next(field for field in dataclasses.fields(flags) if field.name == name)
    kind, names = get_type_hints(flags, include_extras=True)[name], [f"--{name.replace('_', '-')}"]
    if get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        names += [alias for note in notes for alias in getattr(note, "aliases", None) or ()]
    told = f"{_documented(flags)[name]}{_default(field, kind)}".replace("%", "%%")
    if field.default is dataclasses.MISSING:
        return actions.add_argument(name, metavar=name.removesuffix("s").upper(), nargs="+", help=told)
    if kind is bool:
        names += [names[0].replace("--", "--no-", 1)] if field.default else []
        return actions.add_argument(*names, action="store_true", help=told)
    return actions.add_argument(*names, metavar=_taken(kind), help=told)


def _taken(kind: Any) -> str:
    """What a flag takes, in words."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(option for option in get_args(kind) if option is not NoneType)
    if get_origin(kind) is tuple:
        return f"{_taken(get_args(kind)[0])} ..."
    if get_origin(kind) is Literal:
        return f"{{{','.join(str(choice) for choice in get_args(kind))}}}"
    return WORDS.get(kind, "VALUE")


def _default(field: "dataclasses.Field[Any]", kind: Any) -> str:
    value = field.default
    if value is None or value is dataclasses.MISSING or kind is bool:
        return ""
    words = " ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in _several(value))
    return f" (default: {words})"


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _documented(flags: type[Any]) -> dict[str, str]:
    """The docstring that follows each field, on one line."""
    import docstring_parser

    told: dict[str, str] = {}
    for kind in reversed(flags.__mro__[:-1]):
        for field in docstring_parser.parse_from_object(kind).params:
            told[field.arg_name] = " ".join((field.description or "").split())
    return told


def _examples(flags: type[Any], command: str) -> Iterator[str]:
    width = shutil.get_terminal_size().columns - 2
    examples = getattr(flags, "EXAMPLES", {})
    if examples:
        yield "\nexamples:\n"
    for arguments, words in examples.items():
        yield textwrap.fill(words, width, initial_indent="  ", subsequent_indent="  ") + "\n"
        lines = textwrap.wrap(f"{command} {arguments}", width - 6, break_long_words=False, break_on_hyphens=False)
        yield "    " + " \\\n      ".join(lines) + "\n"
