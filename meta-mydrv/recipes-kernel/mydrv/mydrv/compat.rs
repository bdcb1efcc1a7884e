// SPDX-License-Identifier: GPL-2.0-only

//! The seam between kernel versions: all that differs between 6.18, 7.2 and 7.3. The rest of the
//! driver does not know the version. `Kbuild` sets `before_linux_X_Y`.

use kernel::{
    bindings,
    c_str,
    device::Core,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions, //
    },
    of,
    platform,
    prelude::*, //
};

use crate::Mydrv;

/// The module itself, which an open file keeps loaded.
#[cfg(not(before_linux_7_3))]
pub(crate) const THIS_MODULE: *mut bindings::module =
    <crate::LocalModule as kernel::ModuleMetadata>::THIS_MODULE.as_ptr();
#[cfg(before_linux_7_3)]
pub(crate) const THIS_MODULE: *mut bindings::module = crate::THIS_MODULE.as_ptr();

#[cfg(not(before_linux_7_3))]
pub(crate) const DMA_BIDIRECTIONAL: bindings::dma_data_direction =
    bindings::dma_data_direction::DMA_BIDIRECTIONAL;
#[cfg(before_linux_7_3)]
pub(crate) const DMA_BIDIRECTIONAL: bindings::dma_data_direction =
    bindings::dma_data_direction_DMA_BIDIRECTIONAL;

/// The file operations that the kernel crate makes of a [`MiscDevice`].
pub(crate) const fn misc_operations<T: MiscDevice>() -> bindings::file_operations {
    let options = MiscDeviceOptions {
        name: c_str!("mydrv"),
    };
    // SAFETY: The pointer is to a constant of the kernel crate.
    unsafe { *options.into_raw::<T>().fops }
}

/// Operations that are all absent.
pub(crate) const fn zeroed_operations() -> bindings::vm_operations_struct {
    pin_init::zeroed()
}

#[cfg(not(before_linux_7_3))]
kernel::of_device_table!(
    OF_TABLE,
    (),
    [(of::DeviceId::new(c_str!("mydrv,dma-buffer")), ())]
);
#[cfg(before_linux_7_3)]
kernel::of_device_table!(
    OF_TABLE,
    MODULE_OF_TABLE,
    (),
    [(of::DeviceId::new(c_str!("mydrv,dma-buffer")), ())]
);

#[cfg(not(before_linux_7_2))]
impl platform::Driver for Mydrv {
    type IdInfo = ();
    type Data<'bound> = Self;
    const OF_ID_TABLE: Option<of::IdTable<()>> = Some(&OF_TABLE);

    fn probe<'bound>(
        pdev: &'bound platform::Device<Core<'_>>,
        _info: Option<&'bound ()>,
    ) -> impl PinInit<Self, Error> + 'bound {
        Mydrv::bind(pdev.as_ref())
    }
}

#[cfg(before_linux_7_2)]
impl platform::Driver for Mydrv {
    type IdInfo = ();
    const OF_ID_TABLE: Option<of::IdTable<()>> = Some(&OF_TABLE);

    fn probe(pdev: &platform::Device<Core>, _info: Option<&()>) -> Result<Pin<KBox<Self>>> {
        Ok(KBox::new(Mydrv::bind(pdev.as_ref())?, GFP_KERNEL)?.into())
    }
}
