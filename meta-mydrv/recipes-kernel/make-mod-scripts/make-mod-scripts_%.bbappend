require ${@bb.utils.contains('MACHINE_FEATURES', 'mydrv', 'make-mod-scripts-mydrv.inc', '', d)}
