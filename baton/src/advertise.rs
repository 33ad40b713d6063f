//! By which address other machines reach this one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Addresses that nobody has (RFC 5737, RFC 3849): whoever sends there sends to the outside.
const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The port of `discard`.
const DISCARD: u16 = 9;

/// The address that this machine has towards the outside; `None` if no way leads there.
///
/// The kernel is asked which it would send from. Nothing is sent.
pub(crate) fn outgoing(listen: IpAddr) -> Option<IpAddr> {
    let from_v4 = || towards(Ipv4Addr::UNSPECIFIED.into(), OUTSIDE_V4.into());
    match listen {
        IpAddr::V4(_) => from_v4(),
        // Whoever listens on all of IPv6 is reached by IPv4, too.
        IpAddr::V6(_) => from_v4().or_else(|| towards(listen, OUTSIDE_V6.into())),
    }
}

fn towards(any: IpAddr, outside: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((outside, DISCARD)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outgoing_address_is_one_that_can_be_called() {
        for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            // A machine without a network has none.
            assert!(outgoing(any).is_none_or(|ip| !ip.is_unspecified()));
        }
    }
}
