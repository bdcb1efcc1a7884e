// SPDX-License-Identifier: GPL-2.0-only
/*
 * The few kernel interfaces that Rust cannot reach, because they are inline functions, macros, or missing from the Rust bindings. No
 * decision is taken here: that is the Rust side's work.
 */

#include <linux/anon_inodes.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/of.h>
#include <linux/of_reserved_mem.h>

#include "shim.h"

/*
 * of_reserved_mem.h is not in the bindings. Ties the first memory-region of the device's node to the device. -ENOENT: the node has none;
 * -ENXIO: the kernel did not reserve it at boot; others are the region's own refusal.
 */
int mydrv_region_claim(struct device *dev, u64 *base, u64 *size, bool *no_map)
{
	struct device_node *np = of_parse_phandle(dev->of_node, "memory-region", 0);
	struct reserved_mem *rmem;
	bool available;

	if (!np)
		return -ENOENT;
	rmem = of_reserved_mem_lookup(np);
	available = of_device_is_available(np);
	*no_map = of_property_read_bool(np, "no-map");
	of_node_put(np);
	if (!rmem || !available)
		return -ENXIO;
	*base = rmem->base;
	*size = rmem->size;
	return of_reserved_mem_device_init_by_idx(dev, dev->of_node, 0);
}

void mydrv_region_release(struct device *dev)
{
	of_reserved_mem_device_release(dev);
}

/* Inline. */
bool mydrv_dev_is_coherent(struct device *dev)
{
	return dev_is_dma_coherent(dev);
}

/* A macro. */
void *mydrv_page_address(struct page *page)
{
	return page_address(page);
}

/* A macro. */
u64 mydrv_page_phys(struct page *page)
{
	return page_to_phys(page);
}

/* Inline, as all of dma_sync_single_for_*(). */
void mydrv_sync_for_device(struct device *dev, dma_addr_t addr, size_t len)
{
	dma_sync_single_for_device(dev, addr, len, DMA_BIDIRECTIONAL);
}

void mydrv_sync_for_cpu(struct device *dev, dma_addr_t addr, size_t len)
{
	dma_sync_single_for_cpu(dev, addr, len, DMA_BIDIRECTIONAL);
}

/* Macros of the architecture; dma_pgprot(), which chooses between them, is not exported. */
pgprot_t mydrv_pgprot_uncached(pgprot_t prot, bool write_combine)
{
	return write_combine ? pgprot_writecombine(prot) : pgprot_dmacoherent(prot);
}

/*
 * Inline. The same protection with the accessed and dirty bits set, so that the first access does not fault again only to set them. An
 * architecture without pte_pgprot() gets its protection back unchanged.
 */
pgprot_t mydrv_pgprot_dirty(pgprot_t prot)
{
	pgprot_t dirty = pte_pgprot(pte_mkdirty(pte_mkyoung(pfn_pte(0, prot))));

	return pgprot_val(dirty) ? dirty : prot;
}

/*
 * The Rust bindings of 7.2 give VM_MAYSHARE the value of VM_MAYEXEC. VM_SHARED would not do: it is clear for a shared mapping of a
 * read-only file.
 */
bool mydrv_vma_is_shared(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_MAYSHARE;
}

/* Inline, and where the flags are differs between kernel versions. */
void mydrv_vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vm_flags_set(vma, flags);
}

/*
 * anon_inodes.h is not in the bindings. An inode of its own, whose i_mapping stands for the buffer in the address spaces that map it. The file
 * that comes with it serves only to make it, hence operations that live in the kernel itself.
 */
struct inode *mydrv_anchor_inode(void)
{
	struct file *file = anon_inode_create_getfile("[mydrv]", &generic_ro_fops, NULL, O_RDONLY, NULL);
	struct inode *inode;

	if (IS_ERR(file))
		return ERR_CAST(file);
	inode = file_inode(file);
	ihold(inode);
	fput(file);
	return inode;
}
