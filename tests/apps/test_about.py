"""The page About says of everything that is registered what it means, where it comes from and when not to trust it."""

import re
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.apps.pages import checked, field, opened, words
from xaitools.attribution.base import METHODS, Method
from xaitools.audit.about import ABOUT as AUDIT
from xaitools.probes.base import FAMILIES, PROBES
from xaitools.probes.families import ABOUT as PROBED

ENTRIES = {**{name: entry.about for name, entry in METHODS.items()}, **PROBED, **AUDIT}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_has_three_sentences_a_paper_and_a_doubt(name: str) -> None:
    about = ENTRIES[name]
    assert about is not None, f"{name} says nothing of itself; give its registration about=About(...)"
    assert len(re.findall(r"[.?](?= [A-Z]|$)", about.means)) == 3
    assert re.search(r"(19|20)\d\d", about.paper) and about.doubt.endswith((".", "?"))


def test_families_are_told_in_the_order_of_reports() -> None:
    assert tuple(PROBED) == FAMILIES


def test_everything_registered_is_on_the_page_and_can_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def untold(*args: Any) -> Any:
        """What the docstring *says*.

        And no more.
        """

    METHODS["lrp"]  # the registry is read before something is put into it
    monkeypatch.setitem(METHODS._entries, "untold", Method("untold", untold, "gradients", {}))
    app = opened("about")
    said = words(app)
    assert all(f"**{name}**" in said for name in [*ENTRIES, "untold", *(each.name for each in PROBES.values() if each.family in FAMILIES)])
    assert "What the docstring *says*." in said and "And no more" not in said
    field(app, "find").set_value("GEIRHOS").run()
    said = words(checked(app))
    assert "**texture**" in said and "**audit**" in said and "**saliency**" not in said
    field(app, "find").set_value("<b>").run()
    assert app.info[0].value == r"Nothing here speaks of \<b\>."


def test_what_is_sought_is_in_the_address() -> None:
    app: AppTest = opened("about", find="occlusion-panels")
    assert "**occlusion-panels**" in words(app) and "**drise**" not in words(app)
