"""Field masks of update calls: which fields of a stored object a client means to replace.

Vocabulary: a *path* is ``field`` or, for a map, ``field.KEY`` where KEY is all the rest, dots included.
Source: google.protobuf.FieldMask, and the wording containerd's stores use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydock.base import errors

Refuse = Callable[[str], errors.PydockError]


def merge(old: Mapping[str, str], new: Mapping[str, str], field: str, path: str) -> dict[str, str] | None:
    """Return map ``field`` after ``path``: replaced for "field", one key set or (absent in ``new``) removed for "field.KEY".

    None when ``path`` is about another field.
    """
    if path == field:
        return dict(new)
    name, dot, key = path.partition(".")
    if name != field or not dot or not key:
        return None
    merged = dict(old)
    if key in new:
        merged[key] = new[key]
    else:
        merged.pop(key, None)
    return merged


def labels(old: Mapping[str, str], new: Mapping[str, str], paths: Sequence[str], refuse: Refuse) -> dict[str, str]:
    """Return the labels of an object that lets only its labels be updated; no paths means all labels.

    Raises ``refuse(path)`` for any other path.
    """
    merged = dict(old) if paths else dict(new)
    for path in paths:
        changed = merge(merged, new, "labels", path)
        if changed is None:
            raise refuse(path)
        merged = changed
    return merged
