"""What lies in place of a file that was downloaded, by its first bytes: a page of a web site, a server's answer, a pointer, nothing."""

from __future__ import annotations

LOOKED_AT = 512
"""Bytes that tell."""
AGAIN = "download it again"
SIGNED_IN = "sign in where the set is given away, and download it again"
PAGE = (b"<!doctype html", b"<html")
# First bytes in small letters, without blanks before them; what that is; what to do about it.
KINDS = (
    *((form, "is a web page (HTML), such as a server's page to sign in", SIGNED_IN) for form in PAGE),
    (b"<?xml", "is XML, such as a server's answer that says no", SIGNED_IN),
    (b"<error>", "is XML, such as a server's answer that says no", SIGNED_IN),
    (b'{"', "is JSON, such as a server's answer that says no", SIGNED_IN),
    (b"version https://git-lfs", "is a pointer of Git LFS, which stands for the file", "fetch the files: git lfs pull"),
    (b"/annex/objects/", "is a pointer of git-annex, which stands for the file", "fetch the files: git annex get"),
)


def instead_of(head: bytes) -> tuple[str, str] | None:
    """(what it is, what to do about it) of a file that begins so; None where it may be what it should be.

    Args:
        head: the first `LOOKED_AT` bytes, or all where there are fewer.
    """
    if not head:
        return "is empty (0 bytes)", AGAIN
    if len(head) >= LOOKED_AT and not any(head[:LOOKED_AT]):
        return "begins with zeros alone, as a download does whose room was taken and not filled", AGAIN
    return next(((what, fix) for form, what, fix in KINDS if _begin(head).startswith(form)), None)


def is_page(head: bytes) -> bool:
    """Whether a file that begins so is a web page."""
    return _begin(head).startswith(PAGE)


def _begin(head: bytes) -> bytes:
    return head[:LOOKED_AT].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
