"""About: what each method, probe and verdict means, in words, with its paper and when not to trust it."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st
from components.words import note, plain

from xaitools.attribution.base import METHODS
from xaitools.audit.about import ABOUT as AUDIT
from xaitools.probes.base import FAMILIES, PROBES
from xaitools.probes.families import ABOUT as PROBED
from xaitools.registry import About

INTRODUCTION = (
    "A map shows what the model used, not what is true, and it explains one number, which stands beside it. Every entry here says "
    "what is asked, where it comes from, and when not to believe the answer."
)


def page() -> None:
    st.markdown("#### About: what the answers mean, and when not to trust them")
    st.markdown(plain(INTRODUCTION))
    sought = (
        st.text_input("Find", key="find", bind="query-params", max_chars=80, placeholder="lrp, texture, Geirhos ...").strip().casefold()
    )
    shown = [
        section("Explanations", {name: entry.about or _unsaid(entry.function.__doc__) for name, entry in METHODS.items()}, sought),
        section("Families of probes", {name: PROBED[name] for name in FAMILIES}, sought, members=True),
        section("Audit", AUDIT, sought),
    ]
    if not any(shown):
        st.info(f"Nothing here speaks of {plain(sought)}.")


def section(title: str, entries: Mapping[str, About], sought: str, members: bool = False) -> int:
    """The ``entries`` that speak of what is sought, two side by side; how many there are."""
    found = {name: about for name, about in entries.items() if sought in f"{name} {about.means} {about.paper} {about.doubt}".casefold()}
    if found:
        st.markdown(f"##### {title}")
    for place, (name, about) in enumerate(found.items()):
        if place % 2 == 0:
            columns = st.columns(2, gap="medium")
        with columns[place % 2].container(border=True, height="stretch"):
            card(name, about)
            if members:
                with st.expander("Members"):
                    own = [each for each in PROBES.values() if each.family == name]
                    st.markdown("\n".join(f"- **{plain(each.name)}**: {plain(each.about)}" for each in own))
    return len(found)


def card(name: str, about: About) -> None:
    st.markdown(f"**{plain(name)}**  \n{plain(about.means)}")
    st.markdown(f"*When not to trust it:* {plain(about.doubt)}")
    note(about.paper)


def _unsaid(text: str | None) -> About:
    """An entry whose author has written no more than its docstring."""
    first = (text or "").partition("\n")[0]
    return About(first, "no paper is named", "Nobody has said yet when it fails; compare it with another method.")


page()
