"""Live comparisons with torch, transformers and tokenizers: `./lab test --oracle`.

LOGITLAB_BIN            the binary
LOGITLAB_DEFAULT_MODEL  the GGUF file of the default model
LOGITLAB_ORACLE_SEED    repeats the random checkpoints of an earlier run
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "oracle"))

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

RUN_SEED = int(os.environ.get("LOGITLAB_ORACLE_SEED") or random.SystemRandom().randrange(10**9))


def pytest_report_header():
    return f"random checkpoints: LOGITLAB_ORACLE_SEED={RUN_SEED}"


@pytest.fixture(scope="session")
def run_seed():
    print(f"LOGITLAB_ORACLE_SEED={RUN_SEED}")  # shown when a test fails
    return RUN_SEED


def _path_of(variable):
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set; './lab test --oracle' sets it")
    path = Path(value).resolve()
    assert path.exists(), f"{variable}: {path}: no such file"
    return path


@pytest.fixture(scope="session")
def logitlab_bin():
    return _path_of("LOGITLAB_BIN")


@pytest.fixture(scope="session")
def default_model():
    return _path_of("LOGITLAB_DEFAULT_MODEL")


@pytest.fixture(scope="session")
def logitlab(logitlab_bin):
    """Runs the command and returns its standard output; with as_json the parsed document."""

    def run(*arguments, as_json=False):
        command = [str(logitlab_bin), *map(str, arguments), *(["--json"] if as_json else [])]
        done = subprocess.run(command, capture_output=True, timeout=300, check=False)
        message = done.stderr.decode(errors="replace")
        assert done.returncode == 0, f"{command}: exit code {done.returncode}: {message}"
        text = done.stdout.decode()
        return json.loads(text) if as_json else text

    return run
