# SPDX-License-Identifier: MIT
"""The emulated device: a disk with both slots, a flash with U-Boot's environment, a console; the bundles that it is given, and their server."""

import http.server
import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from pathlib import Path

import jsonschema
from labgrid import Environment

TOP = Path(__file__).resolve().parent.parent.parent
OTA = Path(os.environ["LG_OTA"])
FLASH_BYTES = 64 << 20
# As ^C, which ends pytest too: or QEMU would outlive it.
signal.signal(signal.SIGTERM, signal.default_int_handler)
# What U-Boot's script says, and the bench's units at the end of a boot.
CHOSEN = r"Slot (\S); attempts left: (A \S+, B \S+);"
SETTLED = r"bench: slot (\S+), (\S+), (\S+)\r"


class Device:
    """One device, from the factory: version 1.0.0 in slot A. Its disk and flash are in a folder of its own, and outlive the power. `media` is an image
    that it sees as another disk, `boot_loader` a U-Boot other than the bench's."""

    def __init__(self, folder, log=None, media=None, boot_loader=None):
        self.folder = Path(folder)
        self.disk, self.flash = self.folder / "disk.img", self.folder / "flash.img"
        self.copy(OTA / "disk.img", self.disk)
        self.erase_environment()
        self.env = Environment(str(Path(__file__).with_name("qemu.yaml")))
        if boot_loader:
            self.env.config.data["images"]["u-boot"] = str(boot_loader)
        for driver in self.env.config.data["targets"]["main"]["drivers"]:
            if "QEMUDriver" in driver:
                driver["QEMUDriver"]["extra_args"] += (
                    f" -drive if=none,id=disk,format=raw,file={self.disk} -device virtio-blk-pci,drive=disk"
                    f" -drive if=pflash,unit=1,format=raw,file={self.flash}"
                )
                # After the slots' disk, which is U-Boot's first.
                if media:
                    driver["QEMUDriver"]["extra_args"] += (
                        f" -drive if=none,id=media,format=raw,readonly=on,file={media} -device virtio-blk-pci,drive=media,serial=media"
                    )
        self.target = self.env.get_target()
        self.qemu = self.target.get_driver("QEMUDriver", activate=False)
        self.shell = self.target.get_driver("ShellDriver", activate=False)
        self.log_console(log or self.folder / "console.log")

    def log_console(self, path):
        """Keeps all that is read from the console, as it comes."""
        read, log = self.qemu._read, open(path, "ab", buffering=0)

        def logged(*args, **kwargs):
            data = read(*args, **kwargs)
            log.write(data)
            return data

        self.qemu._read = logged

    @staticmethod
    def copy(source, target):
        subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)

    def erase_environment(self):
        self.flash.write_bytes(b"\xff" * FLASH_BYTES)

    # ---- Power and boots

    def on(self):
        self.target.activate(self.qemu)
        self.qemu.on()

    def off(self):
        """The power goes, at once."""
        if self.qemu.status:
            if self.shell.state.name == "active":
                self.target.deactivate(self.shell)
            self.qemu._child.kill()
            self.qemu._child.wait()
            self.qemu._child = None
            self.qemu.status = 0
            self.target.deactivate(self.qemu)

    def expect(self, pattern, timeout):
        return self.qemu.expect(pattern, timeout=timeout)[2]

    def settled(self, timeout=300):
        """Waits for a boot's end: slot, version, outcome."""
        return tuple(word.decode() for word in self.expect(SETTLED, timeout).groups())

    def boots(self, timeout=900):
        """Tells of boots until one is good, however many it takes: the slot that U-Boot chooses and the attempts that are left, or slot, version and
        outcome at a boot's end. One that fails on trial restarts too early to tell."""
        deadline = time.monotonic() + timeout
        told = ()
        while told[2:] != ("good",):
            groups = self.expect(rf"{CHOSEN}|{SETTLED}", max(1, deadline - time.monotonic())).groups()
            told = tuple(group.decode() for group in groups if group)
            yield told

    def good(self):
        """Waits until a boot is good: its slot and version, and the slots that U-Boot tried before."""
        tried = []
        for boot in self.boots():
            if len(boot) == 2:
                tried.append(boot[0])
        return boot[:2], tried[:-1]

    def login(self):
        self.target.activate(self.shell)
        # What kernel and systemd tell from here on would get into the prompt.
        self.run("dmesg --console-off; bash -c 'kill -s RTMIN+21 1'")

    def reboot(self):
        self.qemu.sendline("systemctl reboot")
        self.target.deactivate(self.shell)

    # ---- Commands

    def execute(self, command, timeout=120):
        output, _, status = self.shell.run(f"{{ {command}\n}} 2>&1", timeout=timeout)
        return "\n".join(output), status

    def run(self, command, timeout=120):
        output, status = self.execute(command, timeout)
        assert status == 0, f"{command}: status {status}\n{output}"
        return output

    def environment(self):
        """RAUC's variables of U-Boot's environment."""
        lines = self.run("fw_printenv BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def network(self):
        self.run(
            "mkdir -p /run/systemd/network; printf '[Match]\\nType=ether\\n[Network]\\nDHCP=ipv4\\n' >/run/systemd/network/10-bench.network;"
            " systemctl start systemd-networkd && /usr/lib/systemd/systemd-networkd-wait-online --timeout=30"
        )

    def install(self, url, timeout=600):
        """Output, status and seconds of `rauc install`."""
        began = time.monotonic()
        output, status = self.execute(f"rauc install {shlex.quote(url)}", timeout)
        return output, status, time.monotonic() - began

    def status(self):
        """What the device tells of its slots, as its schema says."""
        status = json.loads(self.run("mydrvctl --json status"))
        jsonschema.validate(status, json.loads(self.run("cat /usr/share/mydrvctl/schema/status.json")))
        return status


class Server:
    """An HTTP server for bundles, on the loopback, which QEMU shows to the device as 10.0.2.2. Knows ranges, and counts what it sends."""

    def __init__(self, folder):
        outer = self
        self.sent = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, body):
                path = Path(folder) / Path(self.path).name
                if not path.is_file():
                    self.send_error(404)
                    return
                size = path.stat().st_size
                first, last, code = 0, size - 1, 200
                wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                if wanted:
                    first, last, code = int(wanted[1]), min(int(wanted[2] or last), last), 206
                    if first > last:
                        self.send_error(416)
                        return
                self.send_response(code)
                if code == 206:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Length", str(last - first + 1))
                self.end_headers()
                if not body:
                    return
                with path.open("rb") as file:
                    file.seek(first)
                    left = last - first + 1
                    while left:
                        chunk = file.read(min(left, 1 << 16))
                        self.wfile.write(chunk)
                        outer.sent += len(chunk)
                        left -= len(chunk)

            def handle(self):
                try:
                    super().handle()
                except (ConnectionError, TimeoutError):
                    pass  # the device's power went

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def url(self, name):
        return f"http://10.0.2.2:{self.http.server_address[1]}/{name}"

    def close(self):
        self.http.shutdown()


# ---- Updates


def bundle(version, image, path, *options):
    """Makes a bundle of an image, by the bench."""
    done = subprocess.run([TOP / "bench/ota/bundle", version, image, path, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def changed(image, path, *commands):
    """A copy of an image after some of debugfs's commands."""
    Device.copy(image, path)
    script = path.with_suffix(".debugfs")
    script.write_text("\n".join(commands) + "\n")
    done = subprocess.run(["debugfs", "-w", "-f", script, path], capture_output=True, text=True)
    script.unlink()
    wrong = [line for line in done.stderr.splitlines() if not line.startswith("debugfs 1.")]
    assert done.returncode == 0 and not wrong, f"{commands}:\n{done.stdout}{done.stderr}"
    return path
