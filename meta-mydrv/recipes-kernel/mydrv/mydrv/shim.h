/* SPDX-License-Identifier: GPL-2.0-only */
/* What the Rust side calls in C; see shim.c for why, shim.rs for the Rust declarations. */
#ifndef MYDRV_SHIM_H
#define MYDRV_SHIM_H

#include <linux/mm_types.h>
#include <linux/types.h>

struct device;
struct inode;
struct page;

int mydrv_region_claim(struct device *dev, u64 *base, u64 *size, bool *no_map);
void mydrv_region_release(struct device *dev);
bool mydrv_dev_is_coherent(struct device *dev);
void *mydrv_page_address(struct page *page);
u64 mydrv_page_phys(struct page *page);
void mydrv_sync_for_device(struct device *dev, dma_addr_t addr, size_t len);
void mydrv_sync_for_cpu(struct device *dev, dma_addr_t addr, size_t len);
pgprot_t mydrv_pgprot_uncached(pgprot_t prot, bool write_combine);
pgprot_t mydrv_pgprot_dirty(pgprot_t prot);
bool mydrv_vma_is_shared(const struct vm_area_struct *vma);
void mydrv_vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags);
struct inode *mydrv_anchor_inode(void);

#endif
