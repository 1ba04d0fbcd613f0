"""YAML as users write it: read, or refused in one line."""

from typing import Any

import yaml

from seenet.core.errors import UsageError


def read_yaml(text: str, source: str) -> Any:
    """The values of a YAML text, whose `source` stands in errors.

    UsageError: not valid YAML, a date that is none, or a key that stands twice in one mapping, of which YAML keeps the last in silence.
    """
    try:
        loader = yaml.SafeLoader(text)
        top = loader.get_single_node()
        if top is None:
            return None
        _refuse_repeated(loader, top, source)
        return loader.construct_document(top)
    # Of values such as 2026-02-30, or numbers of 5,000 digits; of brackets by the thousand.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{source}: not valid YAML ({' '.join(str(error).split())[:200]})") from None


def _refuse_repeated(loader: yaml.SafeLoader, top: yaml.Node, source: str) -> None:
    # An alias leads to a node that is there already.
    seen: set[int] = set()
    nodes = [top]
    while nodes:
        node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[Any, int] = {}
            for key, value in node.value:
                nodes.append(value)
                if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                    continue
                # 1 and 0x1 are one key, 1 and "1" are two.
                name, line = loader.construct_object(key), key.start_mark.line + 1
                if name in lines:
                    raise UsageError(f"{source}: found {key.value} in line {lines[name]} and again in line {line}, expected it once")
                lines[name] = line
