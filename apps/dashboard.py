"""The browser application: ``xaitools dashboard``.  A page is one file in ``screens``; this one lists them.

A folder called ``pages`` would make streamlit open a page without this file when its address is the first that is asked for.
"""

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent
# in the order of the navigation; a string under it would be shown on every page
PAGES = ("inspect", "probe", "audit", "data", "compare", "about")

# no icons here: streamlit would fetch them from another host
st.set_page_config(page_title="xaitools", layout="wide")
st.html(HERE / "dashboard.css")
pages = [st.Page(HERE / "screens" / f"{name}.py", title=name.capitalize(), default=name == PAGES[0]) for name in PAGES]
try:
    st.navigation(pages, position="top").run()
except Exception as error:  # streamlit would show nothing at all: details of faults stay on the server
    st.error(f"This page came to a fault of its own ({type(error).__name__}) that the server's terminal tells; reload it or choose anew.")
    raise
