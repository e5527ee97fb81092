"""Small tables whose words wrap, where a sheet with its own scroll bars would cut them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import streamlit as st

from xaitools.report.parts import e, table


def show_table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[int] = ()) -> None:
    """Cells as they are, never read as markup; ``right`` are columns of numbers."""
    st.html(table(list(map(e, heads)), [list(map(e, row)) for row in rows], right))
