"""``python -m xaitools`` is the command ``xaitools``."""

from .cli import main

if __name__ == "__main__":
    main()
