"""What joins probes, models and metrics into runs that can be trusted, stopped and resumed."""

import sys
from types import ModuleType
from typing import Any

from ..types import AuditReport
from .examples import Example
from .plan import Plan, make_plan
from .recount import recount
from .run import folder_names, probe, probe_models

__all__ = ["Example", "Plan", "folder_names", "make_plan", "probe", "probe_models", "recount"]


class _Package(ModuleType):
    """``xt.audit`` is this package as soon as anything in it is imported, and the function of that name: so it can be called."""

    def __call__(self, *arguments: Any, **options: Any) -> AuditReport:
        from .examine import audit

        return audit(*arguments, **options)


sys.modules[__name__].__class__ = _Package
