use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const GREETING: usize = 24;

fn limits() -> ConnectionLimits {
    ConnectionLimits {
        open_max: 4,
        per_client_max: 2,
        greeting_timeout: Duration::from_secs(10),
        idle_timeout: Some(Duration::from_secs(60)),
        reader_timeout: Some(Duration::from_secs(30)),
    }
}

fn client(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn guarded(connections: &Connections) -> (Guarded<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(64);
    let seat = connections.admit(client(1)).unwrap();
    (Guarded::new(ours, seat), theirs)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_too_little_is_closed() {
    for said in [&b""[..], b"PRI * HTTP/2"] {
        let connections = Connections::new(limits());
        let (mut guarded, mut client) = guarded(&connections);
        client.write_all(said).await.unwrap();
        let start = Instant::now();
        let error = guarded.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed().as_secs()), (std::io::ErrorKind::TimedOut, 10));
        drop(guarded);
        assert!(connections.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_call_is_closed_after_a_time_and_one_at_work_is_not() {
    let connections = Connections::new(limits());
    let (mut guarded, mut client) = guarded(&connections);
    client.write_all(&[0; GREETING]).await.unwrap();
    let call = guarded.activity().call();
    let start = Instant::now();
    let working = async {
        tokio::time::sleep(Duration::from_secs(1000)).await;
        drop(call);
        std::future::pending::<()>().await;
    };
    let mut rest = Vec::new();
    let error = tokio::select! {
        read = guarded.read_to_end(&mut rest) => read.unwrap_err(),
        () = working => unreachable!(),
    };
    assert_eq!((error.kind(), start.elapsed().as_secs()), (std::io::ErrorKind::TimedOut, 1060));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_closed() {
    let connections = Connections::new(limits());
    let (mut guarded, _client) = guarded(&connections);
    let error = guarded.write_all(&[0; 1000]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn the_longest_idle_makes_room_and_those_at_work_stay() {
    let connections = Connections::new(limits());
    let seats: Vec<Seat> = (1..=4).map(|n| connections.admit(client(n)).unwrap()).collect();
    let _working = seats[0].activity().call();
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(seats[1].activity().call());
    let fifth = connections.admit(client(5)).unwrap();
    let closed = |seat: &Seat| seat.closed().is_cancelled();
    assert_eq!(seats.iter().map(closed).collect::<Vec<_>>().iter().filter(|c| **c).count(), 1);
    assert!(!closed(&seats[0]) && !closed(&seats[1]) && !closed(&fifth));
    assert_eq!(connections.len(), 4, "its place is free at once");
    drop(seats);
    assert_eq!(connections.len(), 1, "and given back once");
}

#[tokio::test(start_paused = true)]
async fn one_client_does_not_take_the_places_of_others() {
    let connections = Connections::new(limits());
    let own: Vec<Seat> = (0..2).map(|_| connections.admit(client(1)).unwrap()).collect();
    let other = connections.admit(client(2)).unwrap();
    let third = connections.admit(client(1)).unwrap();
    assert_eq!(own.iter().filter(|seat| seat.closed().is_cancelled()).count(), 1);
    assert!(!other.closed().is_cancelled(), "it makes room itself");
    let _working: Vec<_> = own.iter().chain([&third]).map(|seat| seat.activity().call()).collect();
    assert!(connections.admit(client(1)).is_none(), "all of its own are at work");
    assert!(connections.admit(client(3)).is_some());
}

#[test]
fn all_addresses_of_a_network_of_ipv6_are_one_client() {
    let v6 = |host| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host));
    assert_eq!(ClientAddress::from(v6(1)), ClientAddress::from(v6(2)));
    let mapped = IpAddr::V6(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
    assert_eq!(ClientAddress::from(mapped), ClientAddress::from(client(1)));
}
