"""Numbers on the pages are the same as on the command line."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import structjob
from structjob.text.appearance import lasting

FORMAT = Path(structjob.__file__).parent / "web" / "static" / "format.js"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_duration_is_the_same_on_the_pages_and_on_the_command_line():
    """Both round to the second: 102.84 s is 1m 43s in either (R46, R49)."""
    values = [1_000 * seconds for seconds in (59.95, 60.6, 89.5, 102.84, 119.7, 3599.6, 3660, 7199)]
    program = (
        f"import {{ duration }} from {json.dumps(FORMAT.as_uri())};"
        f"console.log(JSON.stringify({json.dumps(values)}.map(duration)))"
    )
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program], capture_output=True, check=True, timeout=30
    )
    shown = [text.replace("\u202f", "") for text in json.loads(done.stdout)]
    assert shown == [lasting(value / 1000) for value in values]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_what_crashed_ran_at_least_until_its_last_sign_of_life():
    """The pages show a minimum, and without a sign of life nothing (R46, R49)."""
    program = (
        f"import {{ spent }} from {json.dumps(FORMAT.as_uri())};"
        "console.log(JSON.stringify([spent(10300, 'crashed'), spent(0, 'crashed'), spent(10300, 'failed')]))"
    )
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program], capture_output=True, check=True, timeout=30
    )
    shown = [text.replace("\u202f", "") for text in json.loads(done.stdout)]
    assert shown == ["≥10.3s", "–", "10.3s"]
