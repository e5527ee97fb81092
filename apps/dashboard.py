"""The browser application: ``xaitools dashboard``.  A page is one file in ``pages``; this one lists them."""

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent

# no icons here: streamlit would fetch them from another host
st.set_page_config(page_title="xaitools", layout="wide")
st.html(HERE / "dashboard.css")
PAGES = [
    st.Page(HERE / "pages" / "inspect.py", title="Inspect", default=True),
    st.Page(HERE / "pages" / "probe.py", title="Probe"),
    st.Page(HERE / "pages" / "audit.py", title="Audit"),
]
st.navigation(PAGES, position="top").run()
