"""``python -m lorarar.cli COMMAND …``, where the program ``lorarar`` is not installed."""

import sys

from lorarar.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
