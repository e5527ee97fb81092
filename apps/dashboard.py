"""The browser application: ``xaitools dashboard``.  A page is one file in ``pages``; this one lists them."""

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent
PAGES = ("inspect", "probe", "audit", "data", "compare", "about")
"""In the order in which the navigation shows them."""

# no icons here: streamlit would fetch them from another host
st.set_page_config(page_title="xaitools", layout="wide")
st.html(HERE / "dashboard.css")
pages = [st.Page(HERE / "pages" / f"{name}.py", title=name.capitalize(), default=name == PAGES[0]) for name in PAGES]
st.navigation(pages, position="top").run()
