require ${@bb.utils.contains('MACHINE_FEATURES', 'mydrv-ota', 'u-boot-mydrv-ota.inc', '', d)}
