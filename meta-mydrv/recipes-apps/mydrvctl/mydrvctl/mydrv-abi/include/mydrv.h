/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The ioctls of /dev/mydrvN, as src/abi.rs has them for the driver and for Rust; a test holds the two together. examples/c/hello.c shows
 * their use. A structure never changes once released: a later version adds ioctls, and an older driver answers ENOTTY to those.
 */

#ifndef MYDRV_H
#define MYDRV_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The version of this interface; mydrv_info.abi_version tells the driver's. */
#define MYDRV_ABI_VERSION 2

/* The bytes of mydrv_info.label, its terminating NUL included. */
#define MYDRV_LABEL_BYTES 32

/* mydrv_info.flags */
#define MYDRV_FLAG_READ_ONLY (1U << 0)    /* read-only for every user (`read-only` in the device tree) */
#define MYDRV_FLAG_SCRUB (1U << 1)        /* zeroed whenever the last user closes it (`mydrv,scrub`) */
#define MYDRV_FLAG_RESERVED (1U << 2)     /* the memory comes from a reserved region (`memory-region`) */
#define MYDRV_FLAG_NO_MAP (1U << 3)       /* the region is outside the kernel's own mapping (`no-map`) */
#define MYDRV_FLAG_DMA_COHERENT (1U << 4) /* the device snoops the processor's caches (`dma-coherent`) */
#define MYDRV_FLAG_ADDRESSES (1U << 5)    /* the addresses are filled in: the caller has CAP_SYS_RAWIO */
#define MYDRV_FLAG_PRISTINE (1U << 6)     /* no file was open for writing since the driver last zeroed the buffer */

/* mydrv_info.cache_mode */
#define MYDRV_CACHE_COHERENT 0U      /* processor and device always see the same data */
#define MYDRV_CACHE_WRITE_COMBINE 1U /* as coherent, with writes gathered before they leave the processor */
#define MYDRV_CACHE_CACHED 2U        /* the caches are used; MYDRV_IOC_SYNC keeps both sides in step */

/* What MYDRV_IOC_INFO answers. */
struct mydrv_info {
	__u32 abi_version;       /* the driver's MYDRV_ABI_VERSION */
	__u32 flags;             /* MYDRV_FLAG_* */
	__u64 size_bytes;        /* a multiple of the page size */
	__u64 dma_address;       /* what a DMA engine is given; 0 without MYDRV_FLAG_ADDRESSES */
	__u64 physical_address;  /* 0 without MYDRV_FLAG_ADDRESSES */
	__u64 region_base;       /* 0 without MYDRV_FLAG_ADDRESSES or MYDRV_FLAG_RESERVED */
	__u64 region_size_bytes; /* 0 without MYDRV_FLAG_RESERVED */
	__u32 cache_mode;        /* MYDRV_CACHE_* */
	__u32 reserved;          /* 0 */
	char label[MYDRV_LABEL_BYTES]; /* of the device tree, NUL-terminated; empty where it has none */
};

/* What MYDRV_IOC_USERS answers. */
struct mydrv_users {
	__u64 opened_for_writing; /* files opened for writing since the device was bound */
	__u32 open_files;         /* files open now, the caller's own among them; a mapping keeps its file open */
	__u32 reserved;           /* 0 */
};

/* mydrv_sync.direction: before the device reads or writes the range; after the device wrote, before the processor reads or writes it. */
#define MYDRV_SYNC_TO_DEVICE 1U
#define MYDRV_SYNC_FROM_DEVICE 2U

/* What MYDRV_IOC_SYNC takes. */
struct mydrv_sync {
	__u64 offset;    /* the first byte, counted from the buffer's start */
	__u64 length;    /* bytes, at least 1 */
	__u32 direction; /* MYDRV_SYNC_* */
	__u32 reserved;  /* 0; anything else is refused */
};

#define MYDRV_IOC_MAGIC 0xD8

/* Describes the buffer. Never fails but with ENODEV (the device is gone) or EFAULT. */
#define MYDRV_IOC_INFO _IOR(MYDRV_IOC_MAGIC, 0x00, struct mydrv_info)

/*
 * Hands a range of a cached buffer from the processor to the device or back; whole cache lines change hands. Coherent and write-combining
 * buffers need no sync: the call does nothing there but check its argument.
 *
 * EINVAL: an unknown direction, an empty range, or reserved bits set. ERANGE: the range leaves the buffer, or its end overflows. EBADF:
 * FROM_DEVICE through a file not open for writing, on a buffer that others may write. ENODEV: the device is gone.
 */
#define MYDRV_IOC_SYNC _IOW(MYDRV_IOC_MAGIC, 0x01, struct mydrv_sync)

/* Counts the files that are open, and those that were; since ABI version 2. Never fails but with ENODEV or EFAULT. */
#define MYDRV_IOC_USERS _IOR(MYDRV_IOC_MAGIC, 0x02, struct mydrv_users)

#endif /* MYDRV_H */
