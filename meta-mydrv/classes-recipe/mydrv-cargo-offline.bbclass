# SPDX-License-Identifier: MIT
# meta-rust-bin's cargo_bin leaves it to Cargo to fetch crates. With this, Cargo sees bitbake's and no others, as with OE-Core's cargo.bbclass; and
# no path of the build is left in what it compiles.

EXTRA_CARGO_FLAGS = "--offline --locked"
EXTRA_RUSTFLAGS = "--remap-path-prefix=${WORKDIR}=${TARGET_DBGSRC_DIR}"

do_configure:append() {
    printf '[source.bitbake]\ndirectory = "%s"\n\n[source.crates-io]\nreplace-with = "bitbake"\n' ${UNPACKDIR}/cargo_home/bitbake >${CARGO_HOME}/config.toml
}
