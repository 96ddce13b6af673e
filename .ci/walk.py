"""Runs the shell and Python blocks of a page in the working directory, in order; stops at the first that fails."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

BLOCK = re.compile(
    r"(?:<!-- not walked: (?P<why>.*?) -->\n)?^```(?P<language>sh|python)\n(?P<text>.*?)^```", re.M | re.S
)


def main(page: Path) -> int:
    """Walk through ``page``; returns an exit code."""
    walked = 0
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        text = block["text"].rstrip()
        if block["why"]:
            print(f"-- passed over, {block['why']}:\n{text}\n", flush=True)
            continue
        print(f"-- {page.name}:\n{text}\n", flush=True)
        command = (
            ["bash", "-euo", "pipefail", "-c", text] if block["language"] == "sh" else [sys.executable, "-c", text]
        )
        started = time.monotonic()
        code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
        print(f"-- {time.monotonic() - started:.0f} s\n", flush=True)
        if code:
            print(f"{page.name}: the block above ended with code {code}", file=sys.stderr)
            return 1
        walked += 1
    print(f"{page.name}: {walked} blocks ran as written")
    return 0 if walked else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
