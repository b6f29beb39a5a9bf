//! Records that cross the wall as they lie in memory.
//!
//! The engine's derived code writes a list of records field by field and looks the guest's memory
//! up anew for each: for a batch of 256 events that is most of the cost of a call. The records of
//! the contract hold integers only and lie in Rust as the canonical ABI lays them out, so a whole
//! list is one copy.
//!
//! This builds on parts of the engine's traits that it does not promise to keep; the engine's
//! version is fixed in the manifest, and another one that changes them does not compile.

use wasmtime::component::__internal::{
    CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext, LowerContext,
};
use wasmtime::component::{ComponentType, Lift, Lower};

use millstream_wire as wire;

/// A record whose layout in Rust is the canonical one.
///
/// # Safety
/// The type is `repr(C)` and holds integers only, or records like it, so that every pattern of bits
/// is a value of it. Size and alignment are the canonical ones, and fields stand in the order of
/// the contract.
pub(super) unsafe trait Plain: ComponentType + Copy + 'static {}

/// A plain record without padding, whose bytes can therefore all be read.
///
/// # Safety
/// The sizes of the fields add up to the size of the type.
pub(super) unsafe trait Dense: Plain {}

// SAFETY: `repr(C)`, integers and spans only; `layouts_are_canonical` below compares sizes and
// alignments, and the wire crate's derives fix the order of the fields.
unsafe impl Plain for wire::Event {}
// SAFETY: as above.
unsafe impl Plain for wire::Header {}
// SAFETY: as above.
unsafe impl Plain for wire::Extra {}
// SAFETY: as above.
unsafe impl Plain for wire::Output {}
// SAFETY: as above.
unsafe impl Plain for wire::Failure {}

// SAFETY: u64, i64, three spans of 8 bytes and six u32 are 64 bytes.
unsafe impl Dense for wire::Event {}
// SAFETY: two spans of 8 bytes and a u32 are 20 bytes.
unsafe impl Dense for wire::Header {}
// SAFETY: two u32 and a u64 are 16 bytes.
unsafe impl Dense for wire::Extra {}

const _: () = {
    assert!(size_of::<wire::Event>() == 8 + 8 + 3 * 8 + 6 * 4);
    assert!(size_of::<wire::Header>() == 2 * 8 + 4);
    assert!(size_of::<wire::Extra>() == 2 * 4 + 8);
};

/// A record on its way across the wall.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Packed<T>(T);

/// The same records, ready to be lowered.
pub(super) fn packed<T: Plain>(records: &[T]) -> &[Packed<T>] {
    // SAFETY: `Packed` is a transparent wrapper, so the slices have the same layout.
    unsafe { std::slice::from_raw_parts(records.as_ptr().cast(), records.len()) }
}

/// The same records, as they were lifted.
pub(super) fn unpacked<T: Plain>(records: Vec<Packed<T>>) -> Vec<T> {
    records.into_iter().map(|record| record.0).collect()
}

// SAFETY: everything is delegated to the record itself, whose ABI this therefore has.
unsafe impl<T: Plain> ComponentType for Packed<T> {
    type Lower = T::Lower;

    const ABI: CanonicalAbiInfo = T::ABI;
    const MAY_REQUIRE_REALLOC: bool = T::MAY_REQUIRE_REALLOC;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        T::typecheck(ty, types)
    }
}

// SAFETY: single records are delegated. A list is written to the window that the engine has
// allocated for it, which indexing checks again, in the layout that `Plain` promises.
unsafe impl<T: Dense + Lower> Lower for Packed<T> {
    fn linear_lower_to_flat<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        ty: InterfaceType,
        dst: &mut std::mem::MaybeUninit<Self::Lower>,
    ) -> wasmtime::Result<()> {
        self.0.linear_lower_to_flat(cx, ty, dst)
    }

    fn linear_lower_to_memory<U>(
        &self,
        cx: &mut LowerContext<'_, U>,
        ty: InterfaceType,
        offset: usize,
    ) -> wasmtime::Result<()> {
        self.0.linear_lower_to_memory(cx, ty, offset)
    }

    fn linear_store_list_to_memory<U>(
        cx: &mut LowerContext<'_, U>,
        ty: InterfaceType,
        offset: usize,
        items: &[Self],
    ) -> wasmtime::Result<()> {
        if cfg!(target_endian = "big") {
            for (index, item) in items.iter().enumerate() {
                item.linear_lower_to_memory(cx, ty, offset + index * Self::SIZE32)?;
            }
            return Ok(());
        }
        // SAFETY: `Dense` promises that no byte of the records is padding, so all are initialized.
        let bytes =
            unsafe { std::slice::from_raw_parts(items.as_ptr().cast::<u8>(), size_of_val(items)) };
        cx.as_slice_mut()[offset..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

// SAFETY: what is read lies within `bytes`, which the length check proves, and `Plain` promises
// that any bytes are a value.
unsafe impl<T: Plain + Lift> Lift for Packed<T> {
    fn linear_lift_from_flat(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        src: &Self::Lower,
    ) -> wasmtime::Result<Self> {
        T::linear_lift_from_flat(cx, ty, src).map(Self)
    }

    fn linear_lift_from_memory(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        bytes: &[u8],
    ) -> wasmtime::Result<Self> {
        if cfg!(target_endian = "big") || bytes.len() != size_of::<T>() {
            return T::linear_lift_from_memory(cx, ty, bytes).map(Self);
        }
        // SAFETY: `bytes` is as long as the record, the read needs no alignment, and `Plain`
        // promises that every pattern of bits is a value of `T`.
        Ok(Self(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical<T: Plain>() {
        assert_eq!(size_of::<T>(), T::SIZE32);
        assert_eq!(align_of::<T>(), T::ALIGN32 as usize);
    }

    /// A copy of whole lists is right only as long as both sides agree on every record's layout.
    #[test]
    fn layouts_are_canonical() {
        canonical::<wire::Event>();
        canonical::<wire::Header>();
        canonical::<wire::Extra>();
        canonical::<wire::Output>();
        canonical::<wire::Failure>();
    }
}
