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
    """Console, command line and pages have one rule, at its boundaries and at what lies between two
    roundings: 0.3 ms is <1ms, 102.84 s is 1m 43s in either (R5, R46, R49).
    """
    values = [
        0, 0.3, 0.999, 1, 1.5, 2.5, 20, 999.4, 999.5, 1_000, 1_005, 1_115, 1_125, 4_482, 8_345, 9_994.9,
        9_995, 10_250, 59_949, 59_950, 60_600, 89_500, 102_840, 119_700, 3_599_600, 3_660_000, 7_199_000,
        86_399_400, 86_400_000, 100_000_000, 172_800_000, 9_000_000_000,
    ]  # fmt: skip
    values += [1.7**n for n in range(40)]
    program = (
        f"import {{ duration }} from {json.dumps(FORMAT.as_uri())};"
        f"console.log(JSON.stringify({json.dumps(values)}.map(duration)))"
    )
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program], capture_output=True, check=True, timeout=30
    )
    shown = [text.replace("\u202f", "") for text in json.loads(done.stdout)]
    assert shown == [lasting(value / 1000) for value in values]
    assert shown[:4] == ["<1ms", "<1ms", "<1ms", "1ms"]


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
