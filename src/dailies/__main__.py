"""Run ``python -m dailies``: the command line."""

import sys

from dailies.pipelines.import_path import safe_path

sys.path[:] = safe_path(sys.path)  # python -m puts the working directory first, and a video's neighbour may be typer.py

from dailies.pipelines.cli.main import main  # noqa: E402

main()
