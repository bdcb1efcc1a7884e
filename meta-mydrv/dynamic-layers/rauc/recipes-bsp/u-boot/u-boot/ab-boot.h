/* SPDX-License-Identifier: MIT */
/* All that U-Boot takes from the stored environment; the rest, scripts among it, is always its own. Compiled with -include. */
#define CFG_ENV_FLAGS_LIST_STATIC "BOOT_ORDER:sw,BOOT_A_LEFT:xw,BOOT_B_LEFT:xw"
