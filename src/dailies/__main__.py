"""The command line, also as ``python -m dailies``.

The working directory is left before anything else is imported: a video's neighbour may be called typer.py.
"""

import sys

from dailies.pipelines.import_path import safe_path

sys.path[:] = safe_path(sys.path)


def main() -> None:
    """Run the command line."""
    from dailies.pipelines.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
