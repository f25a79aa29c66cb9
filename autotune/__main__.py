"""``python -m autotune`` is the ``autotune`` command."""

import sys
from importlib.util import find_spec

import autotune

if not hasattr(autotune, "DISTRIBUTION"):  # what is called autotune on PyPI has put its __init__.py over ours
    sys.exit(
        f"autotune: another package has overwritten {autotune.__file__}: autotune on PyPI is another project;"
        " pip uninstall autotune, and install pipeline-autotune again with --force-reinstall --no-deps"
    )

if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"] and find_spec("typer") is None:  # an environment with nothing but torch
        from autotune.worker import main as worker

        sys.exit(worker(sys.argv[2:]))
    from autotune.cli import main

    main()
