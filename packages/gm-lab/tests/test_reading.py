"""The one reader: any file gives plain values or one reason, at once."""

import json
import math
import os

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gm_lab.run.reading import DEPTH, Unreadable, parsed_json, read_bytes, read_json, read_text, read_yaml

READERS = [read_bytes, read_text, read_json, read_yaml]
NAMES = st.text(st.characters(categories=["L", "N"]))
TEXTS = st.text(st.characters(exclude_characters="\x85", exclude_categories=["Cs"]))  # YAML takes it for a line's end
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(NAMES, inside, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_file_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("link")
    for path, reason in ((tmp_path, "is a folder"), (tmp_path / "fifo", "is a FIFO"), ("/dev/zero", "is a device")):
        with pytest.raises(Unreadable, match=f"^{reason}$"):
            read(path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent")
    with pytest.raises(OSError, match="symbolic links"):
        read(tmp_path / "link")


@pytest.mark.parametrize("read", READERS)
def test_a_file_that_is_too_long_is_refused(tmp_path, read):
    (tmp_path / "file").write_text("[1]")
    read(tmp_path / "file", limit=3)
    with pytest.raises(Unreadable, match=r"^is longer than 2 bytes$"):
        read(tmp_path / "file", limit=2)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ("- ", "")])
def test_depth_is_limited(tmp_path, opening, closing):
    path = tmp_path / "file"
    readers = [read_yaml] if opening == "- " else [read_json, read_yaml]
    for read in readers:
        path.write_text(opening * DEPTH + "1" + closing * DEPTH)
        read(path)
        for levels in (DEPTH + 1, 900, 100_000):
            path.write_text(opening * levels + "1" + closing * levels)
            with pytest.raises(Unreadable, match=r"^is nested deeper than 32 levels$"):
                read(path)


ODD_YAML = [
    "a: &a [1]\nb: *a", "a: 2001-01-01", "a: 2001-99-99", "1: 2", "? [1]\n: 2", "a: !!binary aGk=", "a: !!set {b}", "]",
    "a: !!python/object:os.system {}", "a: =", "a: b: c", "\x00", "%YAML 9", "a: !!int x", "--- 1\n--- 2",
    "a: !!float x", "a: !!timestamp x", "a: !!bool x", "a: 0x_", "a: !!int ''",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD_YAML)
def test_yaml_that_is_no_plain_value_is_refused(tmp_path, text):
    (tmp_path / "file").write_text(text)
    with pytest.raises(Unreadable, match=r"^(is no YAML|has an? )"):
        read_yaml(tmp_path / "file")


def test_aliases_that_would_fill_memory_are_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]" for n in range(1, 12)]
    (tmp_path / "file").write_text("\n".join(lines))
    with pytest.raises(Unreadable, match="alias"):
        read_yaml(tmp_path / "file")


@settings(max_examples=50)
@given(PLAIN)
def test_what_is_written_is_read(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value"
    path.write_text(json.dumps(value))
    assert read_json(path) == value
    path.write_bytes(yaml.safe_dump({"a": value}, sort_keys=False, allow_unicode=True).encode())
    assert read_yaml(path) == {"a": value}


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"1" * 5000)
@example(b"\xff\xfe")
@example(b"\xef\xbb\xbf1")
@example(b"NaN")
def test_any_bytes_give_a_value_or_a_reason(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(content)
    for read in (read_text, read_json, read_yaml):
        reason = "is anything"
        try:
            read(path)
        except Unreadable as error:
            reason = str(error)
        assert reason.startswith(("is ", "has "))
        assert "\n" not in reason


def test_rows_may_hold_numbers_that_are_none():
    assert math.isnan(parsed_json("[NaN, Infinity]")[0])
