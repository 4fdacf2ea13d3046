"""What is said and written: any text, on any terminal, and nothing but files of the folder that is meant."""

import contextlib
import errno
import io
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gm_lab.run.errors import BadInput


def open_streams() -> None:
    """Lets stdout and stderr take any text, and opens those that are closed, lest another file gets their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Prints a text as one line on stderr; that nothing takes it is no reason to end."""
    with contextlib.suppress(OSError, ValueError):
        print(in_a_line(text), file=sys.stderr, flush=True)


def in_a_line(text: str) -> str:
    r"""A text with its line breaks, and whatever else a terminal would obey, as \n, \x1b and the like."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def encoded(text: str) -> bytes:
    r"""Any text in UTF-8; what stands for a byte that is no text becomes \udcff, which JSON reads as it was."""
    return text.encode("utf-8", "backslashreplace")


def quoted(text: str) -> str:
    """A word of a command to type, on one line whatever is in it."""
    if text.isprintable():
        return shlex.quote(text)
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # it can be no file's name
        raw = text.encode("utf-8", "surrogatepass")
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in raw)
    return f"$'{''.join(plain)}'"


def home_path(path: Path) -> Path:
    """A path whose ~ is spelled out, where the shell has left it, as in --run-dir=~/runs."""
    try:
        return path.expanduser()
    except RuntimeError:  # no such user
        return path


def own_file(name: str, flags: int) -> int:
    """Opens, as the `opener` of `open`, files alone: it follows no symbolic link, waits for no FIFO, and no device."""
    refuse_other_than_file(name)
    number = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):  # it has been replaced
        os.close(number)
        raise OSError(errno.EINVAL, "it is no file", name)
    return number


def refuse_other_than_file(name: str | Path) -> None:
    """Raises OSError if there is something of that name that is no file, or a symbolic link to one."""
    with contextlib.suppress(FileNotFoundError):
        kind = os.lstat(name).st_mode
        if stat.S_ISLNK(kind):
            raise OSError(errno.ELOOP, "it is a symbolic link", str(name))
        if not stat.S_ISREG(kind):
            number = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
            raise OSError(number, os.strerror(number) if stat.S_ISDIR(kind) else "it is no file", str(name))


def refuse_links_out(folder: Path) -> None:
    """Raises BadInput if a symbolic link in a folder, at any depth, leads out of it: what it names isn't ours."""
    whole = folder.resolve()
    for link in _links(whole):
        try:
            target = link.resolve()
        except (OSError, RuntimeError):  # a link to itself
            target = None
        of_wandb = link.relative_to(whole).match(
            "wandb/*/logs/debug-core.log"
        )  # W&B makes it, and it alone writes there
        if target is None or not (target.is_relative_to(whole) or of_wandb):
            place = folder / link.relative_to(whole)
            raise BadInput(f"expected a run directory with files of its own, got {place}, a link to {link.readlink()}")


def _links(folder: Path) -> Iterator[Path]:
    waiting = [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield Path(entry.path)
                elif entry.is_dir():
                    waiting.append(entry.path)
