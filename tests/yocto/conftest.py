# SPDX-License-Identifier: MIT
"""How the tests run bitbake: by kas, in build directories of their own, so that each configuration keeps its parse cache."""

import os
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
WORK = TOP / "build/yocto"
LAYERS = WORK / "layers"
OFFLINE = "kas.yml:tests/yocto/offline.yml"
BENCH = "kas.yml:tests/yocto/bench.yml"
UPDATE = "kas.yml:tests/yocto/update.yml"

# tests/tally.py
pytest_plugins = ["tally"]


class Done:
    """A command that ended: its status and all that it said."""

    def __init__(self, command, done):
        self.command, self.status, self.output = command, done.returncode, done.stdout

    def good(self):
        assert self.status == 0, f"{self.command}: status {self.status}\n{self.output[-6000:]}"
        return self.output

    def without_complaint(self):
        """Good, and not a single warning."""
        complaints = [line for line in self.good().splitlines() if line.startswith(("WARNING:", "ERROR:"))]
        assert not complaints, "\n".join(complaints)
        return self.output

    def refused(self, *parts):
        """Failed, and said each of these."""
        assert self.status != 0, self.output[-3000:]
        for part in parts:
            assert part in self.output, f"{part!r} is not in:\n{self.output[-6000:]}"


def kas(*arguments, build="build"):
    env = {**os.environ, "KAS_BUILD_DIR": str(WORK / build)}
    command = ["kas", "--log-level", "warning", *arguments]
    return Done(arguments, subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, cwd=TOP, stdin=subprocess.DEVNULL))


def shell(line, files=OFFLINE, build=None):
    """A command line in bitbake's environment."""
    build = build or {OFFLINE: "plan", BENCH: "build", UPDATE: "build-update"}[files]
    return kas("shell", files, "-c", line, build=build)


@pytest.fixture
def bench(tmp_path):
    """A function that runs bitbake in the configuration that executes the recipes, with lines of configuration before (MACHINE = …) and after it.
    In a directory of its own, since bitbake takes away what a configuration no longer has."""

    def bench(arguments, after="", before="", build="build-wrong"):
        for name, text in (("before", before), ("after", after)):
            (tmp_path / f"{name}.conf").write_text(text + "\n")
        return shell(f"bitbake -r {tmp_path}/before.conf -R {tmp_path}/after.conf {arguments}", BENCH, build)

    return bench
