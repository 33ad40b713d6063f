//! Who a client is to the cluster: a number, the same in all its requests.
//!
//! The number goes to the workers, which share themselves out by it, and nowhere else: not into logs,
//! not into metrics.

use std::net::{IpAddr, Ipv6Addr};

use words::ClientId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Keep keys and addresses apart: a key that spells an address is no address.
const KEY_SEED: u64 = 0x6b65_7900;
const ADDRESS_SEED: u64 = 0x6164_6472;

/// Bits of an IPv6 address that name a subscriber; the rest each of his machines chooses itself.
const IPV6_PREFIX_BITS: u32 = 64;

/// The client that owns a key.
pub(crate) fn of_key(key: &[u8]) -> ClientId {
    ClientId(xxh3_64_with_seed(key, KEY_SEED))
}

/// The client at an address, where there are no keys.
pub(crate) fn of_address(address: IpAddr) -> ClientId {
    let subscriber = match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - IPV6_PREFIX_BITS)))
        }
    };
    ClientId(xxh3_64_with_seed(&subscriber.octets(), ADDRESS_SEED))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::itself("10.0.0.1", "10.0.0.1", true)]
    #[case::a_neighbour("10.0.0.1", "10.0.0.2", false)]
    #[case::the_same_over_ipv6("10.0.0.1", "::ffff:10.0.0.1", true)]
    #[case::another_machine_of_a_subscriber("2001:db8::1", "2001:db8::ffff:1", true)]
    #[case::another_subscriber("2001:db8::1", "2001:db8:0:1::1", false)]
    fn an_address_is_a_client(#[case] one: &str, #[case] other: &str, #[case] same: bool) {
        let client = |address: &str| of_address(address.parse().unwrap());
        assert_eq!(client(one) == client(other), same);
    }

    #[test]
    fn a_key_is_no_address() {
        let address = IpAddr::from([10, 0, 0, 1]);
        let octets = Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]).octets();
        assert_ne!(of_key(&octets), of_address(address));
        assert_ne!(of_key(b"sk-one"), of_key(b"sk-two"));
    }
}
