require ${@bb.utils.contains('MACHINE_FEATURES', 'mydrv', 'recipes-kernel/linux/linux-mydrv.inc', '', d)}
