"""What the tests of all pages do: open one by its address, read it, find its fields."""

from __future__ import annotations

import json
from typing import Any

from streamlit.testing.v1 import AppTest

from xaitools.locations import part


def opened(name: str, /, **address: Any) -> AppTest:
    """The page at that address, drawn once."""
    app = AppTest.from_file(str(part("apps") / "dashboard.py"), default_timeout=200)
    app.query_params.update(address)
    if name != "inspect":
        app.switch_page(str(part("apps") / "screens" / f"{name}.py"))
    return checked(app.run())


def checked(app: AppTest) -> AppTest:
    assert not app.exception, app.exception
    return app


def pictures(app: AppTest) -> dict[str, Any]:
    """What the picture component was given, by key."""
    return {each.key: json.loads(each.proto.json) for each in app.get("bidi_component")}


def words(app: AppTest) -> str:
    return "\n".join(each.value for kind in ("markdown", "caption", "code") for each in app.get(kind)).replace("\\", "")


def field(app: AppTest, key: str) -> Any:
    return next(each for each in [*app.main] if getattr(each, "key", None) == key)
