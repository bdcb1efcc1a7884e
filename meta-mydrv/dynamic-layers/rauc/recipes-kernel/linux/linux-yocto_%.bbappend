require ${@bb.utils.contains('MACHINE_FEATURES', 'mydrv-ota', 'linux-mydrv-ota.inc', '', d)}
