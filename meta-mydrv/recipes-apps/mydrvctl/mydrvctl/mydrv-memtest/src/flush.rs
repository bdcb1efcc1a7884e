// SPDX-License-Identifier: MIT

//! How a program writes cache lines back to memory and drops them, on each processor that lets it.

use crate::line::LINE_BYTES;

/// A processor's instruction that cleans and invalidates one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// How many bytes one instruction flushes, if fewer than a line's 64.
    step: usize,
}

impl Instruction {
    /// The one that this processor has and this kernel allows; `None` if there is none.
    pub fn detect() -> Option<Self> {
        let block = block_bytes()?;
        // A smaller block than a word, or one that is no power of two, is no machine's.
        (block.is_power_of_two() && block >= 8).then_some(Self {
            step: block.min(LINE_BYTES),
        })
    }

    /// Its name, as the processor's manual spells it.
    pub fn name(self) -> &'static str {
        NAME
    }

    /// Flushes the line's first block, which most often is the whole line.
    ///
    /// # Safety
    ///
    /// [`detect`](Self::detect) found the instruction, and the address is mapped for reading.
    #[inline(always)]
    pub(crate) unsafe fn line(at: *mut u8) {
        // SAFETY: the caller's.
        unsafe { block(at) }
    }

    /// Flushes what [`line`](Self::line) left of each line, where blocks are smaller.
    ///
    /// # Safety
    ///
    /// The range is mapped for reading.
    pub(crate) unsafe fn rest(self, start: *mut u8, len: usize) {
        if self.step < LINE_BYTES {
            for offset in (0..len)
                .step_by(self.step)
                .filter(|offset| !offset.is_multiple_of(LINE_BYTES))
            {
                // SAFETY: the caller's.
                unsafe { block(start.wrapping_add(offset)) }
            }
        }
    }
}

/// Waits until flushes and writes are done.
#[inline(always)]
pub(crate) fn barrier() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier changes no state.
    unsafe {
        std::arch::asm!("dsb sy", options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("fence iorw, iorw", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

// ---- aarch64: Linux lets programs use `dc civac` and read CTR_EL0, or does it for them (Documentation/arch/arm64/cpu-feature-registers.rst).

#[cfg(target_arch = "aarch64")]
const NAME: &str = "dc civac";

#[cfg(target_arch = "aarch64")]
fn block_bytes() -> Option<usize> {
    let ctr: usize;
    // SAFETY: reads a register.
    unsafe { std::arch::asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    // DminLine: the logarithm of the smallest data cache line, in words of 4 bytes.
    Some(4 << (ctr >> 16 & 0xf))
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn block(at: *mut u8) {
    // SAFETY: the caller vouches for the address.
    unsafe { std::arch::asm!("dc civac, {}", in(reg) at, options(nostack, preserves_flags)) };
}

// ---- x86-64: `clflush` is part of the base line, and its line is 64 bytes on every processor so far; CPUID tells.

#[cfg(target_arch = "x86_64")]
const NAME: &str = "clflush";

#[cfg(target_arch = "x86_64")]
fn block_bytes() -> Option<usize> {
    // Leaf 1, EBX bits 15 to 8: the line in units of 8 bytes.
    #[allow(unused_unsafe, reason = "safe in newer compilers than the oldest that builds this")]
    // SAFETY: every x86-64 processor has leaf 1.
    let leaf = unsafe { std::arch::x86_64::__cpuid(1) };
    Some((leaf.ebx >> 8 & 0xff) as usize * 8)
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn block(at: *mut u8) {
    // SAFETY: the caller vouches for the address.
    unsafe { std::arch::x86_64::_mm_clflush(at) };
}

// ---- riscv64: `cbo.flush` of Zicbom, where the kernel says that programs may (riscv_hwprobe, Documentation/arch/riscv/hwprobe.rst).

#[cfg(target_arch = "riscv64")]
const NAME: &str = "cbo.flush";

#[cfg(target_arch = "riscv64")]
fn block_bytes() -> Option<usize> {
    const NR_RISCV_HWPROBE: usize = 258;
    const KEY_IMA_EXT_0: i64 = 4;
    const EXT_ZICBOM: u64 = 1 << 55;
    const KEY_ZICBOM_BLOCK_SIZE: i64 = 12;
    #[repr(C)]
    struct Pair {
        key: i64,
        value: u64,
    }
    let mut pairs = [KEY_IMA_EXT_0, KEY_ZICBOM_BLOCK_SIZE].map(|key| Pair { key, value: 0 });
    let answer: usize;
    // SAFETY: riscv_hwprobe(pairs, 2, 0, NULL, 0), of all processors, writes to the pairs alone; an older kernel answers ENOSYS.
    unsafe {
        std::arch::asm!("ecall", in("a7") NR_RISCV_HWPROBE, inlateout("a0") pairs.as_mut_ptr() => answer, in("a1") pairs.len(), in("a2") 0, in("a3") 0, in("a4") 0,
            options(nostack));
    }
    // A key that the kernel does not know comes back as -1.
    let known = answer == 0 && pairs.iter().all(|pair| pair.key >= 0) && pairs[0].value & EXT_ZICBOM != 0;
    known.then_some(pairs[1].value as usize)
}

#[cfg(target_arch = "riscv64")]
#[inline(always)]
unsafe fn block(at: *mut u8) {
    // By its encoding: the compiler's target need not have Zicbom.
    // SAFETY: the caller vouches for the address; `detect` for the instruction.
    unsafe { std::arch::asm!(".insn i 0x0f, 2, x0, {}, 2", in(reg) at, options(nostack, preserves_flags)) };
}

// ---- Others have no such instruction for programs.

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64", target_arch = "riscv64")))]
const NAME: &str = "";

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64", target_arch = "riscv64")))]
fn block_bytes() -> Option<usize> {
    None
}

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64", target_arch = "riscv64")))]
unsafe fn block(_: *mut u8) {}
