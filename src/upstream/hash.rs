//! Hashes that are the same on every machine and in every version: clients stay where they are when a gateway
//! is replaced, or another one serves them.

use std::net::IpAddr;

/// Of an address.
pub(super) fn of_address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(it) => mix(u64::from(u32::from(it))),
        IpAddr::V6(it) => {
            let bits = u128::from(it);
            mix(mix((bits >> 64) as u64) ^ bits as u64)
        }
    }
}

/// A bijection in which every bit of the input changes half of the output's (the finalizer of SplitMix64,
/// Steele, Lea and Flood 2014).
pub(super) fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}
