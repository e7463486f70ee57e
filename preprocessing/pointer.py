"""References within a JSON schema: a JSON pointer (RFC 6901) as a URI fragment → the node that it names."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def resolve(reference: str, root: Any) -> Any:
    """The node that `#…` names; None if there is none, or if the reference leads elsewhere or is an anchor's."""
    if not reference.startswith("#") or is_anchor(reference):
        return None
    node = root
    for step in unquote(reference[1:]).split("/")[1:]:
        if isinstance(node, dict):
            node = node.get(step.replace("~1", "/").replace("~0", "~"))
        elif isinstance(node, list) and INDEX.fullmatch(step) and int(step) < len(node):
            node = node[int(step)]
        else:
            return None
    return node


def is_anchor(reference: str) -> bool:
    """Whether the fragment is a name (`$anchor`), not a path."""
    return reference.startswith("#") and unquote(reference[1:])[:1] not in ("", "/")
