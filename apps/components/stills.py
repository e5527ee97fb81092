"""Pictures that are looked at and not clicked, each with its words."""

from __future__ import annotations

from html import escape

import streamlit as st
from changing import Still

from .words import plain


def show(still: Still, title: str) -> None:
    """A picture under its title, the colours of its classes below."""
    st.markdown(f"**{plain(title)}**")
    st.image(still.png, width="stretch", alt=f"{title}: {still.words}")
    marks = dict(still.colours)
    spots = "".join(f'<span style="color:{colour}">■</span> {escape(name)} &nbsp; ' for name, colour in marks.items())
    st.html(f'<p style="font-size:0.85rem;margin:0">{escape(still.words)}<br>{spots}</p>')
