//! The pieces of text that lines are made of.

use std::io::Write;
use std::net::IpAddr;

pub(super) fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

pub(super) fn put_decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends an address as text. Every request needs some, and most are IPv4: these are written without
/// the formatting machinery.
pub(crate) fn put_ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let mut text = [0; "255.255.255.255.".len()];
            let mut len = 0;
            for octet in address.octets() {
                text[len..len + 4].copy_from_slice(&OCTETS[usize::from(octet)]);
                // Its digits and the dot; what comes after these is overwritten.
                len += 2 + usize::from(octet >= 10) + usize::from(octet >= 100);
            }
            put(out, &[&text[..len - 1]]);
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// Each octet in decimal, and a dot.
static OCTETS: [[u8; 4]; 256] = {
    let mut octets = [[0; 4]; 256];
    let mut octet = 0;
    while octet < octets.len() {
        let value = octet as u8;
        let [hundreds, tens, ones] = [
            b'0' + value / 100,
            b'0' + value / 10 % 10,
            b'0' + value % 10,
        ];
        octets[octet] = match octet {
            0..10 => [ones, b'.', 0, 0],
            10..100 => [tens, ones, b'.', 0],
            _ => [hundreds, tens, ones, b'.'],
        };
        octet += 1;
    }
    octets
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_is_written_as_display_does() {
        for octet in 0..=u8::MAX {
            for octets in [
                [octet, 0, 10, 100],
                [1, octet, 200, 99],
                [255, 9, octet, 254],
                [0, 50, 101, octet],
                [octet; 4],
            ] {
                let (mut out, address) = (Vec::new(), IpAddr::from(octets));
                put_ip(&mut out, address);
                assert_eq!(out, address.to_string().as_bytes());
            }
        }
    }
}
