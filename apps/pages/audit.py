"""Audit."""

import streamlit as st

st.markdown("#### Audit")
