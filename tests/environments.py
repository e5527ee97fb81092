"""Environments of their own for what does not go with our pins; beside ours, made when they are first asked for."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def interpreter(name: str, *requirements: str) -> Path:
    """The Python of ``.venv/<name>``, which has ``requirements``.  Raises OSError or CalledProcessError where it cannot be made."""
    home = ROOT / ".venv" / name
    home.parent.mkdir(exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two workers one makes it
        if not (home / "made").exists():
            tool = shutil.which("uv") or str(ROOT / ".venv" / "tools" / "bin" / "uv")
            subprocess.run([tool, "venv", "-q", "--allow-existing", "--python", sys.executable, home], check=True)
            subprocess.run([tool, "pip", "install", "-q", "--python", home / "bin" / "python", *requirements], check=True)
            (home / "made").touch()
    return home / "bin" / "python"
