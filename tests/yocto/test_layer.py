# SPDX-License-Identifier: MIT
"""The layer as an integrator's bitbake sees it: parsing, plans, signatures."""

import re
import shutil

import pytest

from conftest import BENCH, LAYERS, OFFLINE, TOP, WORK, kas, shell

LAYER = TOP / "meta-mydrv"
RASPBERRY = f"{OFFLINE}:kas/raspberrypi4-64.yml"
OTA = f"{OFFLINE}:kas/ota.yml"
CORE = f"{OFFLINE}:tests/yocto/core.yml"
# What is tried: the kas files, the build directory, the recipes of the layer, of what it extends and of the compiler. Further ones have those that differ.
MACHINES = {
    "qemuarm64": (
        OFFLINE,
        "plan",
        "mydrv mydrv-overlay mydrvctl packagegroup-mydrv mydrv-image linux-yocto make-mod-scripts rust-src-bin-native bindgen-bin-native libclang-bin-native",
    ),
    "raspberrypi4-64": (RASPBERRY, "plan-raspberrypi4-64", "mydrv mydrv-overlay mydrv-image linux-raspberrypi rpi-config"),
    "updates": (OTA, "plan-ota", "mydrv-image mydrv-ota rauc-conf mydrv-bundle linux-yocto u-boot"),
}
FRAGMENTS = sorted(path.name for path in (TOP / "kas").glob("*.yml"))


@pytest.fixture(params=MACHINES)
def machine(request):
    return MACHINES[request.param]


def test_parses_without_a_warning(machine):
    files, build, _ = machine
    assert " 0 errors" in shell("bitbake -p", files, build).without_complaint()


def test_each_recipe_has_an_environment_without_a_warning(machine):
    files, build, recipes = machine
    # One server for all of them, which keeps what it parsed.
    each = f"export BB_SERVER_TIMEOUT=60; for recipe in {recipes}; do bitbake -e $recipe || exit; done | grep -E '^(WARNING: |ERROR: |PN=)'"
    output = shell(each, files, build).without_complaint()
    assert re.findall(r'^PN="(.*)"$', output, re.M) == recipes.split()


def plan(files, build, target="mydrv-image", options=""):
    """The recipes and the number of tasks of what is built."""
    output = shell(f"bitbake {options} -n {target}", files, build).without_complaint()
    recipes = set(re.findall(r"Running (?:setscene )?task \d+ of \d+ \((?:\w+:)*(\S+\.bb):do_", output))
    return recipes, int(re.search(r"Attempted (\d+) tasks", output)[1])


def from_source(recipes):
    """What of the plan builds a compiler from source, other than GCC."""
    return sorted({name[1] for path in recipes if (name := re.search(r"/openembedded-core/.*/((?:llvm|clang|rust|cargo|libstd-rs|bindgen)[^/_]*)[^/]*\.bb$", path))})


def record(name, text):
    (WORK / "plan.txt").open("a").write(f"{name}: {text}\n")


def test_plan_builds_no_compiler_of_rust(machine):
    files, build, expected = machine
    recipes, tasks = plan(files, build, "mydrv-bundle" if build == "plan-ota" else "mydrv-image")
    record(build, f"{len(recipes)} recipes, {tasks} tasks with meta-rust-bin's compiler")
    assert not from_source(recipes)
    for part in (*expected.split(), "rust-bin-cross", "cargo-bin-cross"):
        assert any(re.search(rf"/{part}(_[^/]*)?\.bb$", path) for path in recipes), f"{part} is not in the plan"


def test_plan_with_oe_cores_own_compiler(tmp_path):
    """One variable goes back; the number of tasks stands beside the other."""
    (tmp_path / "rust.conf").write_text('MYDRV_RUST = "oe-core"\n')
    recipes, tasks = plan(OFFLINE, "plan-oe-core", options=f"-R {tmp_path}/rust.conf")
    record("plan-oe-core", f"{len(recipes)} recipes, {tasks} tasks with OE-Core's own, from source: {', '.join(from_source(recipes))}")
    assert from_source(recipes)
    assert not any("meta-rust-bin" in path or "-bin-native" in path for path in recipes)


def test_plans_are_told_in_the_documentation():
    """docs/performance.md has the numbers of this very layer and release."""
    told = (TOP / "docs/performance.md").read_text().replace(",", "")
    for line in (WORK / "plan.txt").read_text().splitlines():
        recipes, tasks = re.findall(r"(\d+) (?:recipes|tasks)", line)
        assert re.search(rf"\| {recipes} \| {tasks} \|", told), f"docs/performance.md lacks: {line}"


def test_any_image_takes_the_feature(tmp_path, machine):
    """IMAGE_FEATURES brings packages and what boots with the overlay; without it the same image has neither."""
    files, build, _ = machine
    boots_by = {"plan": "devicetree/qemuarm64-mydrv.dtb", "plan-raspberrypi4-64": "devicetree/mydrv.dtbo;overlays/mydrv.dtbo", "plan-ota": "mydrv-ota"}
    names = ("FEATURE_INSTALL", "QB_DTB", "IMAGE_BOOT_FILES")
    found = []
    for name, line in (("with", 'IMAGE_FEATURES:append:pn-core-image-minimal = " mydrv"'), ("without", "")):
        (tmp_path / f"{name}.conf").write_text(line + "\n")
        output = shell(f"bitbake -R {tmp_path}/{name}.conf -e core-image-minimal", files, build).good()
        found.append(" ".join(re.findall(rf'^(?:{"|".join(names)})="(.*)"$', output, re.M)))
    assert "packagegroup-mydrv" in found[0] and boots_by[build] in found[0], found
    assert "mydrv" not in found[1], found


@pytest.mark.parametrize("fragments", [[], *([name] for name in FRAGMENTS), FRAGMENTS], ids=" ".join)
def test_kas_takes_every_combination(fragments):
    files = ":".join(["kas.yml", *(f"kas/{name}" for name in fragments)])
    dump = kas("dump", files).good()
    for repository in re.findall(r"^ {2,4}url: (\S+)", dump, re.M):
        assert repository.startswith("https://"), dump
    urls, commits = re.findall(r"\burl: ", dump), re.findall(r"\bcommit: [0-9a-f]{40}$", dump, re.M)
    assert urls and len(urls) == len(commits), dump


def test_team_fragment_asks_for_its_server(tmp_path):
    shell("bitbake -p", f"{OFFLINE}:kas/team.yml", "team").refused("set TEAM_SERVER")


def mended(path):
    """meta-rust-bin as a newer one is: ready for wrynose by itself."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(LAYERS / "meta-rust-bin", path, ignore=shutil.ignore_patterns(".git"))
    for file, old, new in (
        ("conf/layer.conf", "    scarthgap \\\n", "    scarthgap \\\n    wrynose \\\n"),
        ("recipes-devtools/rust/rust-bin-cross.inc", "${WORKDIR}/rust", "${UNPACKDIR}/rust"),
        ("recipes-devtools/rust/cargo-bin-cross.inc", "${{WORKDIR}}", "${{UNPACKDIR}}"),
    ):
        text = (path / file).read_text()
        assert old in text, file
        (path / file).write_text(text.replace(old, new))
    return path


def check_layer(build, setup=""):
    return shell(f"{setup} yocto-check-layer --no-auto-dependency {LAYER}", CORE, build)


def test_yocto_check_layer_alone():
    assert "... PASS" in check_layer("check").without_complaint()


def test_yocto_check_layer_beside_all_that_it_extends():
    """Adding the layer, feature off, changes no signature of the recipes of meta-rust-bin, meta-raspberrypi and meta-rauc either."""
    beside = f"{mended(WORK / 'newer/meta-rust-bin')} {LAYERS}/meta-raspberrypi {LAYERS}/meta-rauc"
    assert "... PASS" in check_layer("check-beside", f"bitbake-layers add-layer {beside} &&").without_complaint()


@pytest.mark.parametrize("which", ["pinned", "newer"])
def test_meta_rust_bin_unpacks_where_this_release_wants_it(tmp_path, which):
    """The pinned one is mended, a newer one left as it is."""
    (tmp_path / "real.conf").write_text('ASSUME_PROVIDED:remove = "rust-bin-cross-aarch64 cargo-bin-cross-aarch64"\n')
    swap = "true"
    if which == "newer":
        swap = f"bitbake-layers remove-layer meta-rust-bin && bitbake-layers add-layer {mended(WORK / 'newer/meta-rust-bin')}"
    recipes = {"rust-bin-cross-aarch64": "rustc-1.95.0-", "cargo-bin-cross-aarch64": "cargo-1.95.0-"}
    output = shell(f"{swap} && for recipe in {' '.join(recipes)}; do bitbake -R {tmp_path}/real.conf -e $recipe || exit; done", BENCH).good()
    folders = [folder.rsplit("/", 2) for folder in re.findall(r'^S="(.*)"$', output, re.M)]
    for (_, parent, name), start in zip(folders, recipes.values(), strict=True):
        assert parent == "sources" and name.startswith(start), folders
    assert re.search(r"^\s+cd \S+/sources/rust-std$", output, re.M)
