# SPDX-License-Identifier: MIT
# What integrators set, with defaults and documentation, and the check of the configuration as a whole. Inherited by layer.conf; adds nothing to
# any other recipe.

MYDRV_CMA_SIZE ??= "0x4000000"
MYDRV_CMA_SIZE[doc] = "Size of the mydrv buffer in bytes, decimal or with 0x: a multiple of 2 MiB. The overlay reserves it, and the boot's check expects it."

# No override of a machine's: it would prevail over a product's plain assignment.
MYDRV_OVERLAY ??= "${@'mydrv' if {'qemuarm64', 'raspberrypi4-64'} & set(d.getVar('MACHINEOVERRIDES').split(':')) else ''}"
MYDRV_OVERLAY[doc] = "The machine's overlay: the name of a .dtso file that mydrv-overlay finds, without suffix. \"mydrv\" is the layer's own. Empty: the \
machine is not supported."

MYDRV_EXPECT ??= "${@'buffer0=${MYDRV_CMA_SIZE}' if d.getVar('MYDRV_OVERLAY') == 'mydrv' else ''}"
MYDRV_EXPECT[doc] = "The buffers that the boot's check expects, as LABEL=SIZE or LABEL, separated by spaces; a buffer without a label by its node, \
/NODE=SIZE. A missing buffer fails the check, and so does any other one. Default: buffer0 of MYDRV_CMA_SIZE for the layer's own overlay; for a \
product's own overlay there is none."

MYDRV_ADDRESS_CELLS ??= "2"
MYDRV_ADDRESS_CELLS[doc] = "#address-cells of the root of the machine's device tree, for the layer's own overlay."

MYDRV_SIZE_CELLS ??= "2"
MYDRV_SIZE_CELLS:raspberrypi4-64 ??= "1"
MYDRV_SIZE_CELLS[doc] = "#size-cells of the root of the machine's device tree, for the layer's own overlay."

MYDRV_RUST ??= "${@bb.utils.contains('BBFILE_COLLECTIONS', 'rust-bin-layer', 'prebuilt', 'oe-core', d)}"
MYDRV_RUST[doc] = "The Rust compiler of kernel, driver and mydrvctl: \"prebuilt\" takes meta-rust-bin's, \"oe-core\" builds OE-Core's from source. \
Default: prebuilt if that layer is there."

# mydrv_errors: what is wrong with the configuration, each with its remedy.
def mydrv_errors(d):
    errors = []
    machine = d.getVar('MACHINE')
    if 'rust' not in (d.getVar('KERNEL_FEATURES') or '').split():
        errors.append('KERNEL_FEATURES lacks "rust", or has it only in a recipe. Set KERNEL_FEATURES:append = " rust" in the machine\'s, the '
                      'distribution\'s or the local configuration, or use OE_FRAGMENTS += "mydrv/mydrv".')
    if 'systemd' not in (d.getVar('DISTRO_FEATURES') or '').split():
        errors.append('DISTRO_FEATURES lacks "systemd", whose units check the buffer at boot. Set INIT_MANAGER = "systemd".')
    if not d.getVar('MYDRV_OVERLAY'):
        errors.append('there is no device-tree overlay for MACHINE "%s". Set MYDRV_OVERLAY:%s; docs/integration.md, "Another board", shows how, or take '
                      '"mydrv" out of MACHINE_FEATURES.' % (machine, machine))
    else:
        errors += mydrv_expect_errors(d, machine)
    rust = d.getVar('MYDRV_RUST')
    if rust not in ('prebuilt', 'oe-core'):
        errors.append('MYDRV_RUST = "%s" is neither "prebuilt" nor "oe-core".' % rust)
    elif rust == 'prebuilt' and 'rust-bin-layer' not in d.getVar('BBFILE_COLLECTIONS').split():
        errors.append('MYDRV_RUST = "prebuilt" needs the layer meta-rust-bin. Add it to BBLAYERS, or set MYDRV_RUST = "oe-core".')
    return errors + mydrv_size_errors(d)

def mydrv_expect_errors(d, machine):
    import re
    words = (d.getVar('MYDRV_EXPECT') or '').split()
    if not words:
        return ['MYDRV_EXPECT is empty: without the list of its buffers, an overlay that has lost one would pass the boot\'s check. Set MYDRV_EXPECT:%s = '
                '"LABEL=SIZE LABEL=SIZE", of each buffer in "%s".' % (machine, d.getVar('MYDRV_OVERLAY'))]
    wrong = [word for word in words if not re.fullmatch(r'[^="\\%$]+(=(0[xX][0-9a-fA-F]+|[0-9]+)([KkMmGg](iB)?)?)?', word)]
    return ['MYDRV_EXPECT: "%s" is neither LABEL nor LABEL=SIZE, such as buffer0=64M.' % word for word in wrong]

def mydrv_size_errors(d):
    import re
    text = d.getVar('MYDRV_CMA_SIZE')
    try:
        size = int(text, 0)
    except ValueError:
        size = 0
    if size <= 0 or size % 0x200000:
        return ['MYDRV_CMA_SIZE = "%s" is not a size in bytes, a multiple of 2 MiB (0x200000), such as 0x4000000 for 64 MiB.' % text]
    # Only an emulated machine's configuration says how much memory there is. Up to three quarters of it were seen to bind at each boot.
    memory = re.search(r'-m\s+(\d+)', d.getVar('QB_MEM') or '')
    if memory and size > int(memory.group(1)) * 0x100000 * 3 // 4:
        return ['MYDRV_CMA_SIZE = "%s" is more than three quarters of the %s MiB that QB_MEM gives the machine: too little is left for the system. Set QB_MEM = '
                '"-m MIB" to more, or MYDRV_CMA_SIZE to less.' % (text, memory.group(1))]
    return []

addhandler mydrv_check
mydrv_check[doc] = "Explains what the configuration lacks, before anything is parsed."
mydrv_check[eventmask] = "bb.event.SanityCheck"
python mydrv_check() {
    if 'mydrv' not in (d.getVar('MACHINE_FEATURES') or '').split():
        return
    errors = mydrv_errors(d)
    if errors:
        bb.fatal('MACHINE_FEATURES has "mydrv", but:\n' + '\n'.join('  - ' + error for error in errors))
}
