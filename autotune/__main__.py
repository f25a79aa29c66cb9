"""``python -m autotune`` is the ``autotune`` command."""

import sys

import autotune

if not hasattr(autotune, "DISTRIBUTION"):  # what is called autotune on PyPI has put its __init__.py over ours
    sys.exit(
        f"autotune: another package has overwritten {autotune.__file__}: autotune on PyPI is another project;"
        " pip uninstall autotune, and install pipeline-autotune again with --force-reinstall --no-deps"
    )

from autotune.cli import main

if __name__ == "__main__":
    main()
