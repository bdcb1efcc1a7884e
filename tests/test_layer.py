# SPDX-License-Identifier: MIT
"""What can be told of the layer without bitbake; `make yocto` has the rest."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from kas.configschema import CONFIGSCHEMA

from guest import TOP

pytestmark = pytest.mark.source

LAYER = TOP / "meta-mydrv"
APPS = LAYER / "recipes-apps/mydrvctl"


def recipe(name):
    return next(LAYER.rglob(f"{name}_*.bb"))


def locked(path):
    return [package for package in tomllib.loads(path.read_text())["package"] if "crates.io" in package.get("source", "")]


def test_crates_of_the_recipe_are_those_of_cargo_lock():
    """bitbake -c update_crates mydrvctl writes the list anew."""
    listed = (APPS / "mydrvctl-crates.inc").read_text()
    crates = locked(APPS / "mydrvctl/Cargo.lock")
    assert re.findall(r"crate://crates\.io/(\S+)/(\S+)", listed) == [(crate["name"], crate["version"]) for crate in crates]
    sums = dict(re.findall(r'^SRC_URI\[(\S+)\.sha256sum\] = "([0-9a-f]{64})"$', listed, re.M))
    assert sums == {f"{crate['name']}-{crate['version']}": crate["checksum"] for crate in crates}


def test_version_is_the_crates_own():
    version = tomllib.loads((APPS / "mydrvctl/Cargo.toml").read_text())["workspace"]["package"]["version"]
    for name in ("mydrvctl", "mydrv", "mydrv-overlay"):
        assert recipe(name).name == f"{name}_{version}.bb"


def test_every_public_variable_is_documented():
    text = (LAYER / "classes-global/mydrv.bbclass").read_text()
    documentation = (TOP / "docs/integration.md").read_text()
    variables = set(re.findall(r"^(MYDRV_\w+)(?::\S+)? \?\?= ", text, re.M))
    assert len(variables) >= 5
    for variable in variables:
        assert f"{variable}[doc] = " in text, variable
        assert f"`{variable}`" in documentation, variable


def test_every_file_names_its_licence():
    """SPDX headers, but for what only requires another file, and what tools write."""
    for path in sorted([*LAYER.rglob("*"), *(TOP / "kas").rglob("*"), *(TOP / "tests/yocto").rglob("*"), TOP / "kas.yml"]):
        if path.suffix in (".bb", ".inc", ".bbclass", ".conf", ".cfg", ".yml", ".py", ".sh", ".rs", ".dtso", ".c", ".h") and not path.name.endswith("-crates.inc"):
            assert "SPDX-License-Identifier: " in path.read_text()[:400], path


def test_layer_is_self_contained():
    """An integrator adds this folder alone: nothing in it reaches out."""
    for path in LAYER.rglob("*"):
        if path.suffix in (".bb", ".bbappend", ".inc", ".bbclass", ".conf"):
            for word in re.findall(r"\$\{(?:THISDIR|LAYERDIR)\}/[^\s:\"]*", path.read_text()):
                start = path.parent if "THISDIR" in word else LAYER
                assert (start / word.split("}/", 1)[1].split("*")[0]).resolve().is_relative_to(LAYER), f"{path}: {word}"
        assert not path.is_symlink() or path.resolve().is_relative_to(LAYER), path


def development_keys(*arguments):
    return subprocess.run([LAYER / "scripts/mydrv-dev-keys", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("mark", [".git", "conf/layer.conf"])
def test_development_keys_stay_out_of_source_trees(tmp_path, mark):
    (tmp_path / mark).mkdir(parents=True)
    refused = development_keys(tmp_path / "a/keys")
    assert refused.returncode and f"inside the source tree {tmp_path}" in refused.stderr
    assert not (tmp_path / "a").exists()


def test_development_keys_are_for_their_owner_and_never_overwritten(tmp_path):
    """Devices may trust those that exist, whichever of them are still there."""
    keys = tmp_path / "keys"
    made = development_keys(keys)
    assert made.returncode == 0, made.stderr
    named = re.findall(r'^RAUC_\w+_FILE = "(.*)"$', made.stdout, re.M)
    assert len(named) == 3 and all(Path(path).stat().st_mode & 0o077 == 0 for path in named), made.stdout
    (keys / "ca.cert.pem").unlink()
    before = {path: path.read_bytes() for path in keys.iterdir()}
    again = development_keys(keys)
    assert again.returncode and "is not empty" in again.stderr
    assert {path: path.read_bytes() for path in keys.iterdir()} == before


@pytest.mark.parametrize("arguments", [[], [""], ["--explode"], ["keys"] * 2, ["keys"] * 11], ids=len)
def test_development_keys_want_one_directory(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    refused = development_keys(*arguments)
    assert refused.returncode and "name one directory" in refused.stderr
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("path", [TOP / "kas.yml", *sorted((TOP / "kas").glob("*.yml")), *sorted((TOP / "tests/yocto").glob("*.yml"))], ids=lambda path: path.name)
def test_kas_file_keeps_to_the_schema(path):
    jsonschema.validate(yaml.safe_load(path.read_text()), CONFIGSCHEMA)


def test_style_has_no_findings():
    """What suppresses a rule is in oelint.cfg, with its reason."""
    recipes = [str(path) for pattern in ("*.bb", "*.bbappend", "*.inc", "*.bbclass", "layer.conf") for path in sorted(LAYER.rglob(pattern))]
    env = {**os.environ, "OELINT_CONFIG": str(TOP / "tests/oelint.cfg")}
    oelint = Path(sys.executable).with_name("oelint-adv")
    done = subprocess.run([oelint, "--quiet", *recipes], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    assert done.returncode == 0 and not done.stdout.strip(), done.stdout


def test_what_the_layer_pins_is_a_commit():
    """kas files name each repository by a commit, and agree with one another."""
    commits = {}
    for path in [TOP / "kas.yml", *(TOP / "kas").glob("*.yml")]:
        for url, commit in re.findall(r"url: (\S+)\n(?:.*\n)*?\s+commit: (\S+)", path.read_text()):
            assert re.fullmatch("[0-9a-f]{40}", commit), f"{path}: {url}"
            assert commits.setdefault(url, commit) == commit, url
        assert path.read_text().count("url:") == path.read_text().count("commit:"), path
    assert len(commits) >= 5
