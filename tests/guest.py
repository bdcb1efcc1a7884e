# SPDX-License-Identifier: MIT
"""A booted system under test, by the labgrid drivers of its environment, and the device trees that the emulated one is booted with."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from labgrid import Environment
from labgrid.pytestplugin.hooks import LABGRID_ENV_KEY

TOP = Path(__file__).resolve().parent.parent
TESTS = "/usr/libexec/mydrv/mydrv-tests"
SKIPPED = 77
KERNEL_LOG = "/run/mydrv-tests.kmsg"
PATTERNS = "/run/mydrv-tests.patterns"


def warning_patterns():
    """The kernel messages that fail a test: bench/boot's."""
    lines = (TOP / "bench/kernel-warnings").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


class Guest:
    """Runs commands as root; knows what the kernel said since it was last asked."""

    is_debug = False

    def __init__(self, shell, power=None):
        self.shell = shell
        self.power = power
        self.seen = 0
        # A file, since the kernel's own buffer is short.
        self.run(f"(while :; do cat /dev/kmsg; done >{KERNEL_LOG} 2>/dev/null </dev/null &)")
        self.run(f"printf '%s\\n' {shlex.join(warning_patterns())} >{PATTERNS}")
        # Checkers make everything slower, and less of it enough.
        self.is_debug = self.status("test -e /sys/kernel/debug/kmemleak") == 0

    def execute(self, command, timeout=60):
        """Output lines and exit status of a shell command; standard error is among the output."""
        output, _, status = self.shell.run(f"{{ {command}\n}} 2>&1", timeout=timeout * (8 if self.is_debug else 1))
        return output, status

    def status(self, command, **kwargs):
        return self.execute(command, **kwargs)[1]

    def run(self, command, **kwargs):
        """The output of a command that must succeed."""
        output, status = self.execute(command, **kwargs)
        text = "\n".join(output)
        assert status == 0, f"{command}: status {status}\n{text}"
        return text

    def test(self, *arguments, device=None, timeout=120):
        """One of mydrv-tests' tests."""
        words = [TESTS, *(["--device", device] if device else []), *map(str, arguments)]
        output, status = self.execute(shlex.join(words), timeout=timeout)
        text = "\n".join(output)
        if status == SKIPPED:
            pytest.skip(text.split("# SKIP ")[-1])
        assert status == 0, f"{shlex.join(words)}: status {status}\n{text}"
        return text

    def scaled(self, number, debug):
        """How much of something to do: so much, or less on a kernel with checkers."""
        return debug if self.is_debug else number

    def kernel_warnings(self):
        """What the kernel warned of since the last call."""
        command = f"tail -c +{self.seen + 1} {KERNEL_LOG} | grep -E -A 15 -f {PATTERNS}; stat -c %s {KERNEL_LOG}"
        output, _ = self.execute(command)
        self.seen = int(output.pop())
        return "\n".join(output)

    def kernel_log(self):
        return self.run(f"sed 's/^[^;]*;//' {KERNEL_LOG}")

    def settle(self):
        """Waits for the boot's end, whatever its verdict."""
        # The job of the target may fail; what counts is that none is left.
        self.run("for i in $(seq 120); do systemctl list-jobs | grep -q 'No jobs' && break; sleep 1; done", timeout=180)

    def off(self):
        if self.power:
            self.power.off()


def environment(request):
    """The labgrid environment of this run."""
    env = request.config.stash[LABGRID_ENV_KEY]
    if env is None:
        pytest.skip("no labgrid environment (--lg-env)")
    return env


def boot(config_file, dtb=None, append=""):
    """Boots the environment's system; with another device tree and more kernel arguments where it is emulated."""
    env = Environment(config_file)
    if dtb:
        env.config.data["images"]["dtb"] = str(dtb)
    if append:
        for driver in env.config.data["targets"]["main"]["drivers"]:
            if "QEMUDriver" in driver:
                driver["QEMUDriver"]["boot_args"] += f" {append}"
    target = env.get_target()
    power = target.get_driver("PowerProtocol", activate=False)
    target.activate(power)
    # A board may be on already, and must start afresh; the emulator starts now.
    power.on() if "qemu" in env.get_features() else power.cycle()
    shell = target.get_driver("CommandProtocol", activate=False)
    try:
        target.activate(shell)
        return Guest(shell, power)
    except Exception:
        power.off()
        raise


# ---- Device trees


def in_build(command, cwd=TOP, **kwargs):
    """Runs a tool of the toolchain root, where the tests run too."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, **kwargs)
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def strictly(schema):
    """The same schema, for which a field that it does not name is an error."""
    if isinstance(schema, list):
        return [strictly(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: strictly(value) for key, value in schema.items()}
    return {**strict, "additionalProperties": False} if "properties" in schema and schema.get("type") == "object" else strict


def region(name, size, kind="reusable;", alignment=0x200000):
    """A reserved-memory node."""
    at = f"alignment = <0 {alignment:#x}>;" if alignment else ""
    return f'{name}: {name} {{ compatible = "shared-dma-pool"; {kind} size = <{size >> 32:#x} {size & 0xffffffff:#x}>; {at} }};'


def buffer(name, properties, compatible="mydrv,dma-buffer"):
    """A buffer's node."""
    return f'{name} {{ compatible = "{compatible}"; {properties} }};'


def overlay(*nodes, regions=()):
    """The source of an overlay with these nodes, below / and below /reserved-memory."""
    return f"""/dts-v1/;
/plugin/;
/ {{
    fragment@0 {{
        target-path = "/";
        __overlay__ {{
            reserved-memory {{ #address-cells = <2>; #size-cells = <2>; ranges; {" ".join(regions)} }};
            {" ".join(nodes)}
        }};
    }};
}};
"""


def machine_tree(path, *sources, product=True):
    """The machine's device tree with overlays: the product's, and those of the sources. Returns where it is."""
    base = Path(os.environ["LG_BUILD"]) / "machine.dtb"
    if not product:
        base = path / "bare.dtb"
        machine = shlex.split(os.environ["LG_EXTRA"])
        qemu = ["qemu-system-aarch64", "-M", f"{os.environ['LG_MACHINE']},dumpdtb={base}", "-cpu", os.environ["LG_CPU"]]
        in_build([*qemu, "-m", os.environ["LG_MEMORY"], "-display", "none", *machine])
        # Without the padding, which with QEMU's own would be more than the kernel takes.
        in_build(["dtc", "-q", "-I", "dtb", "-O", "dtb", "-o", str(base), str(base)])
    overlays = []
    for i, source in enumerate(sources):
        overlays.append(path / f"overlay{i}.dtbo")
        in_build(["dtc", "-q", "-@", "-I", "dts", "-O", "dtb", "-o", str(overlays[-1])], input=source)
    if not overlays:
        return base
    tree = path / "machine.dtb"
    in_build(["fdtoverlay", "-i", str(base), "-o", str(tree), *map(str, overlays)])
    return tree
