require ${@bb.utils.contains('MACHINE_FEATURES', 'mydrv', 'rpi-config-mydrv.inc', '', d)}
