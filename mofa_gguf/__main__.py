"""``python -m mofa_gguf``: the same as the command ``mofa-gguf``."""

import sys

from mofa_gguf.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
