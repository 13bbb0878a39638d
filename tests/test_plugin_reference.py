"""docs/plugins.md is what scripts/plugin_reference.py makes of the plug-ins."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "plugin_reference.py"


def test_the_page_is_up_to_date():
    command = [sys.executable, str(SCRIPT), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
