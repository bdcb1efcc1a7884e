require ${@bb.utils.contains('MACHINE_FEATURES', 'mydrv-ota', 'rauc-conf-mydrv.inc', '', d)}
