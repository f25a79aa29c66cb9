"""Where the keys of a YAML file lie, from the marks that ruamel.yaml sets on its nodes."""

import re
from typing import Any

from autotune.report.export.edit.spans import Entry, Shape, Table, refuse_twice

ALIAS = re.compile(r"\s*:\s*(\*[^\s,\]}]+)")
TAG = "tag:yaml.org,2002:"


def read_yaml(text: str) -> Table:
    """Return the mapping of a YAML file, an empty one of an empty file; raise ValueError for another file, or for a
    key that is there twice, and ruamel.yaml's error for what is no YAML."""
    from ruamel.yaml import YAML

    root = YAML(typ="safe", pure=True).compose(text)
    if root is None or (kind(root) == "scalar" and not root.value):
        return Table(Shape.BLOCK, None, len(text))
    if kind(root) != "mapping":
        raise ValueError("its outermost value is no mapping")
    return Reader(text).table(root)


def kind(node: Any) -> str:
    """Return scalar, sequence or mapping."""
    return str(node.id)


class Reader:
    """Turns the nodes of one text into tables."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.open: list[int] = []  # nodes that are being read: an anchor may lie inside itself

    def table(self, node: Any) -> Table:
        """Return the table of a mapping node."""
        self.open.append(id(node))
        entries = [self.entry(key, value) for key, value in node.value]
        self.open.pop()
        refuse_twice(self.text, entries)
        if node.flow_style:
            inner = self.text.index("{", node.start_mark.index) + 1  # an anchor or a tag may come first
            return Table(Shape.FLOW, inner, node.end_mark.index - 1, entries)
        return Table(Shape.BLOCK, None, self.end(node), entries)

    def entry(self, key: Any, node: Any) -> Entry:
        """Return the entry of a key node and its value's."""
        name = str(key.value) if kind(key) == "scalar" else self.text[key.start_mark.index : key.end_mark.index]
        start, key_end = key.start_mark.index, key.end_mark.index
        alias = ALIAS.match(self.text, key_end) if node.start_mark.index < key_end else None
        value_start, value_end = alias.span(1) if alias else (node.start_mark.index, self.end(node))
        is_table = kind(node) == "mapping" and id(node) not in self.open and name != "<<"
        table = self.table(node) if is_table else None
        return Entry(name, start, key_end, value_start, value_end, None if table else self.value(node), table)

    def end(self, node: Any) -> int:
        """Return where a node's own text ends: before blanks, comments and line breaks that follow it."""
        end = int(node.end_mark.index)
        if kind(node) == "scalar":
            return len(self.text[:end].rstrip()) if node.style in ("|", ">") else end
        if node.flow_style:
            return end
        ends = [self.end(part) for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        return max([int(node.start_mark.index), *(at for at in ends if at <= end)])

    def value(self, node: Any) -> Any:
        """Return the value of a node; the text of a scalar whose tag is not YAML's own."""
        if id(node) in self.open:
            return None
        if kind(node) == "scalar":
            return scalar(node)
        self.open.append(id(node))
        if kind(node) == "sequence":
            value: Any = [self.value(item) for item in node.value]
        else:
            value = {str(key.value): self.value(item) for key, item in node.value}
        self.open.pop()
        return value


def scalar(node: Any) -> Any:
    """Return the value of a scalar node."""
    text, tag = str(node.value), str(node.tag).removeprefix(TAG)
    digits = text.replace("_", "")
    try:
        if tag == "int":
            return int(digits, 0) if not digits.lstrip("+-").isdecimal() else int(digits)
        if tag == "float":
            return float(digits.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return text
    if tag == "bool":
        return text.lower() == "true"
    return None if tag == "null" else text
