"""docs/keys.md has every key of the schema, and agrees with it."""

import re

from resnext.config.schema import schema_defaults
from resnext.config.sweep import SweepConfig
from support.keys import PAGE, describe, draw, groups

ROW = re.compile(r"^\| `([\w.]+)` \| (.+?) \| (.*?) \| (.+) \|$", re.MULTILINE)


def leaves(tree: dict, prefix: str = "") -> dict[str, object]:
    found = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found


def test_the_page_equals_the_schema():
    assert draw() == PAGE.read_text(), "docs/keys.md differs from the schema: run `make docs`"


def test_the_page_has_each_key_once_with_its_default():
    found = [(key, default) for key, _, default, _ in ROW.findall(PAGE.read_text())]
    rows = {key: default for key, default in found if ".options." not in key}
    known = leaves(schema_defaults() | {"sweep": schema_defaults(SweepConfig)})
    assert len(dict(found)) == len(found)
    assert rows.keys() == known.keys()
    for key, value in known.items():
        shown = rows[key].strip("`")
        assert (shown == "required") == (value == "???"), key
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "???":
            assert shown == str(value), key


def test_the_docstring_of_a_group_has_a_sentence_for_each_of_its_keys():
    texts = {
        f"{name}.{key}": describe(key, cls)
        for name, cls in (*groups(), ("sweep", SweepConfig))
        for key in schema_keys(cls)
    }
    assert [key for key, text in texts.items() if len(text) < len("as in torch")] == []


def schema_keys(cls: type) -> list[str]:
    return [key for key, value in schema_defaults(cls).items() if not isinstance(value, dict) or not value]
