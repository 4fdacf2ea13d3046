"""The one reader of files: what is read is foreign until it is checked.

A FIFO, a device or a folder in place of a file is refused and never waited for; so are a file of too many bytes, text
nested too deeply, and values that this program does not write. The file system's own refusals stay OSErrors.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

LIMIT = 2**28
"""Bytes of a file of rows, or of anything else that a run may rightly make long."""
SETTINGS_LIMIT = 2**20
"""Bytes of a YAML file: settings that people type."""
DEPTH = 32
APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
"""Flags for `opened` to write at a file's end."""
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


class Unreadable(ValueError):  # noqa: N818 - named for what it tells, not for the mechanism
    """A file is not what it should be; the message continues a line that names it: "is a FIFO"."""


class NoFile(Unreadable):
    """Something else is in place of a file."""


def opened(path: Path, flags: int = os.O_RDONLY) -> BinaryIO:
    """Opens a file with those flags of `os.open`; raises NoFile if it is something else, and OSError if refused."""
    with contextlib.suppress(FileNotFoundError):  # which the next line says if it is not to be created
        _require_file(Path(path).stat().st_mode)  # what else there is is not even opened: that may wait, or change it
    # without blocking, should it have become a FIFO since
    number = os.open(path, flags | os.O_NONBLOCK, 0o666)
    try:
        _require_file(os.fstat(number).st_mode)
        return os.fdopen(number, "rb" if flags == os.O_RDONLY else "r+b")
    except BaseException:
        os.close(number)
        raise


def _require_file(mode: int) -> None:
    kind = stat.S_IFMT(mode)
    if kind != stat.S_IFREG:
        raise NoFile(f"is {KINDS.get(kind, 'a device')}")


def read_bytes(path: Path, limit: int = LIMIT) -> bytes:
    """The content of a file; raises Unreadable if it is no file or longer than `limit`, and OSError if it is absent."""
    with opened(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise Unreadable(f"is longer than {limit} bytes")
    return content


def read_text(path: Path, limit: int = LIMIT) -> str:
    """The content of a file of UTF-8; raises as `read_bytes`."""
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not UTF-8 ({error.reason} at byte {error.start})") from None


def read_json(path: Path, limit: int = LIMIT) -> Any:
    """The value in a JSON file; raises as `read_bytes`, and Unreadable if it is no JSON or nested too deeply."""
    return parsed_json(read_bytes(path, limit))


def parsed_json(content: bytes | str) -> Any:
    """The value of a JSON text; raises Unreadable if it is none or nested too deeply."""
    import json

    try:
        value = json.loads(content)
    except RecursionError:
        raise Unreadable(f"is nested deeper than {DEPTH} levels") from None
    except ValueError as error:  # also of bytes that are no text, or a number of too many digits
        raise Unreadable(f"is no JSON ({_line(error)})") from None
    return plain_only(value)


def read_yaml(path: Path, limit: int = SETTINGS_LIMIT) -> Any:
    """The value in a YAML file; raises as `read_json`, also for what plain settings lack, such as aliases and dates."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = read_bytes(path, limit)
    try:
        depth = 0
        for event in yaml.parse(content, loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise Unreadable(f"is nested deeper than {DEPTH} levels")
            if isinstance(event, yaml.AliasEvent):  # a few lines of them make a value of gigabytes
                raise Unreadable("has an alias, which settings lack")
        return plain_only(yaml.load(content, loader))
    except Unreadable:
        raise
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        # PyYAML lets errors of the values' own types through, as for the date 2001-99-99
        raise Unreadable(f"is no YAML ({_line(error)})") from None


def plain_only(value: Any) -> Any:
    """Returns a value of None, bool, numbers, text, lists and dicts named by text; raises Unreadable for any other."""
    level = [value]
    for _ in range(DEPTH + 1):
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                for name in item:
                    if not isinstance(name, str):
                        raise Unreadable(f"has a name that is no text but {type(name).__name__}")
                inside += item.values()
            elif isinstance(item, list):
                inside += item
            elif not (item is None or isinstance(item, bool | int | float | str)):
                raise Unreadable(f"has a value of the kind {type(item).__name__}")
        if not inside:
            return value
        level = inside
    raise Unreadable(f"is nested deeper than {DEPTH} levels")


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 100 else text[:99] + "…"
