"""Fields whose value the page itself says at times, and which stand in the address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

state = st.session_state


def pick(label: str, options: Mapping[str, str], key: str) -> str:
    """One of ``options``, value to title; the value stands in the address, where ``bind`` would put the title."""
    asked = st.query_params.get(key)
    if state.get(key) not in options:
        state[key] = asked if asked in options else next(iter(options))
    chosen = st.selectbox(label, list(options), key=key, format_func=lambda each: options[each], persist_state="session")
    st.query_params[key] = chosen
    return chosen


def put(key: str, value: Any) -> None:
    """From here on the field ``key`` has this value."""
    state[key] = value
    state.setdefault("put", set()).add(key)


def default(key: str, value: Any, otherwise: Any = None) -> Any:
    """What a field starts with; ``otherwise`` where ``put`` has just said what it is, which streamlit takes for a contradiction."""
    if key in state.get("put", ()):
        state.put.discard(key)
        return otherwise
    return value


def at_most(key: str, most: int) -> None:
    """The number of a field that another choice has made too large becomes the largest."""
    if state.get(key, 0) > most:
        put(key, most)
