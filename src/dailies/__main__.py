"""Run ``python -m dailies``: the command line."""

from dailies.pipelines.cli.main import main

main()
