// SPDX-License-Identifier: GPL-2.0-only
/*
 * The few kernel interfaces that Rust cannot reach, because they are inline functions, macros, or missing from the Rust bindings. No
 * decision is taken here: that is the Rust side's work.
 */

#include <linux/anon_inodes.h>
#include <linux/cma.h>
#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/of.h>
#include <linux/of_reserved_mem.h>
#include <linux/sched.h>

#include "shim.h"

/* of_node_put() and of_find_node_by_path() are inline. Whether this is the node that the kernel looks for regions in. */
bool mydrv_is_reserved_memory(struct fwnode_handle *node)
{
	struct device_node *reserved = of_find_node_by_path("/reserved-memory");
	bool same = reserved && reserved == to_of_node(node);

	of_node_put(reserved);
	return same;
}

/* of_reserved_mem.h is not in the bindings. Where the kernel reserved the memory of this node; false: it did not. */
bool mydrv_region_range(struct fwnode_handle *node, u64 *base, u64 *size)
{
	struct reserved_mem *rmem = of_reserved_mem_lookup(to_of_node(node));

	if (!rmem)
		return false;
	*base = rmem->base;
	*size = rmem->size;
	return true;
}

/*
 * Not in the bindings, as all of of_reserved_mem.h. Ties the first memory-region of the device's node to the device. One device at a time, since they
 * probe in parallel: the kernel makes the pool of a "no-map" region for the first device that comes, without a lock, and two at once would get a pool
 * each, over the same memory.
 */
int mydrv_region_claim(struct device *dev)
{
	static DEFINE_MUTEX(claiming);
	int err;

	mutex_lock(&claiming);
	err = of_reserved_mem_device_init_by_idx(dev, dev->of_node, 0);
	mutex_unlock(&claiming);
	return err;
}

void mydrv_region_release(struct device *dev)
{
	of_reserved_mem_device_release(dev);
}

/*
 * page_count() and the tests of page flags are inline. Of the bytes of a CMA region: those lent to programs and files, and those that a driver
 * has, which belong to no mapping. A snapshot, as of /proc/kpageflags: pages come and go meanwhile, and those that were just put back are not on
 * an LRU list yet.
 */
void mydrv_region_usage(u64 base, u64 size, u64 *lent, u64 *taken)
{
	unsigned long pfn = PHYS_PFN(base), end = PHYS_PFN(base + size);

	*lent = 0;
	*taken = 0;
	for (; pfn < end; pfn++) {
		struct page *page = pfn_to_page(pfn);

		if (!(pfn % 4096))
			cond_resched();
		if (!page_count(page))
			continue;
		if (PageLRU(page) || READ_ONCE(page_folio(page)->mapping))
			*lent += PAGE_SIZE;
		else
			*taken += PAGE_SIZE;
	}
}

/* A macro: what base and length of a CMA region must be multiples of. */
u64 mydrv_page_block(void)
{
	return CMA_MIN_ALIGNMENT_BYTES;
}

/* The resource's flags are macros. Whether the kernel uses some of the range as its own memory. */
bool mydrv_is_system_ram(u64 base, u64 size)
{
	return region_intersects(base, size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) != REGION_DISJOINT;
}

/* Inline. The address by which the device reaches a physical one without an IOMMU; the highest number there is where its bus does not. */
u64 mydrv_dma_address(struct device *dev, u64 phys)
{
	dma_addr_t addr = phys_to_dma(dev, phys);

	return addr == DMA_MAPPING_ERROR ? U64_MAX : addr;
}

/* Inline, and without a Rust interface before 7.x. */
const char *mydrv_dev_name(struct device *dev)
{
	return dev_name(dev);
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
 * An array of C strings. Tells user space that the device waits for lent pages, which stay where they are as long as they are dirty or in a cache:
 * 60-mydrv.rules has them written back and dropped.
 */
void mydrv_tell_lent(struct device *dev)
{
	char *envp[] = { "MYDRV_LENT=1", NULL };

	kobject_uevent_env(&dev->kobj, KOBJ_CHANGE, envp);
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
