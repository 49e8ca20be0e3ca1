"""`conventions: published`: what the published code does, set together and contradicted by nothing."""

from __future__ import annotations

from collections.abc import Mapping


def with_published(published: Mapping[str, object], given: object) -> object:
    """Options as they were given, over those of the published code where that is asked for.

    Raises:
        ValueError: a key that contradicts it.
    """
    if not isinstance(given, Mapping) or given.get("conventions") != "published":
        return given
    against = [f"method.{k}={given[k]} (theirs: {v})" for k, v in published.items() if given.get(k, v) != v]
    if against:
        raise ValueError(f"method.conventions=published contradicts {', '.join(against)}; drop one or the other")
    return {**published, **given}
