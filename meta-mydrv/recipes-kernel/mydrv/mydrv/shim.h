/* SPDX-License-Identifier: GPL-2.0-only */
/* What the Rust side calls in C; see shim.c for why, shim.rs for the Rust declarations. */
#ifndef MYDRV_SHIM_H
#define MYDRV_SHIM_H

#include <linux/mm_types.h>
#include <linux/types.h>

struct device;
struct fwnode_handle;
struct inode;
struct page;

bool mydrv_is_reserved_memory(struct fwnode_handle *node);
bool mydrv_region_range(struct fwnode_handle *node, u64 *base, u64 *size);
int mydrv_region_claim(struct device *dev);
void mydrv_region_release(struct device *dev);
void mydrv_region_usage(u64 base, u64 size, u64 *lent, u64 *taken);
u64 mydrv_page_block(void);
bool mydrv_is_system_ram(u64 base, u64 size);
u64 mydrv_dma_address(struct device *dev, u64 phys);
const char *mydrv_dev_name(struct device *dev);
bool mydrv_dev_is_coherent(struct device *dev);
void *mydrv_page_address(struct page *page);
u64 mydrv_page_phys(struct page *page);
void mydrv_sync_for_device(struct device *dev, dma_addr_t addr, size_t len);
void mydrv_sync_for_cpu(struct device *dev, dma_addr_t addr, size_t len);
pgprot_t mydrv_pgprot_uncached(pgprot_t prot, bool write_combine);
pgprot_t mydrv_pgprot_dirty(pgprot_t prot);
bool mydrv_vma_is_shared(const struct vm_area_struct *vma);
void mydrv_vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags);
void mydrv_tell_lent(struct device *dev);
struct inode *mydrv_anchor_inode(void);

#endif
