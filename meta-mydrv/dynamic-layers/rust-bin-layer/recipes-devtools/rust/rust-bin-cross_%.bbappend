require ${@bb.utils.contains('MACHINE_FEATURES', 'mydrv', 'rust-bin-unpackdir.inc', '', d)}
