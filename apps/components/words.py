"""Words of users, files and models on the page: shown as they are, never read as Markdown."""

from __future__ import annotations

import re
from string import punctuation

import streamlit as st


def plain(text: str) -> str:
    r"""``text`` such that Markdown shows it unchanged.

    >>> print(plain("![x](y) <b>"))
    \!\[x\]\(y\) \<b\>
    """
    return re.sub(f"([{re.escape(punctuation)}])", r"\\\1", " ".join(text.split()))


def counted(count: int, one: str, many: str = "") -> str:
    """
    >>> counted(1, "proposal"), counted(2, "proposal"), counted(0, "box", "boxes")
    ('1 proposal', '2 proposals', '0 boxes')
    """
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def note(*parts: str) -> None:
    """A small line under what it belongs to."""
    st.caption(plain(" · ".join(part for part in parts if part)))


def refusal(reason: object) -> None:
    """The one line of an error that the user can mend."""
    st.warning(plain(str(reason)))
