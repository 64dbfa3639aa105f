"""`python -m meshslm` is the `meshslm` command."""

from __future__ import annotations

import sys

from meshslm.cli import main

if __name__ == "__main__":
    sys.exit(main())
