use proptest::prelude::*;
use rstest::rstest;

use super::*;

const ROOM: Need = Need { places: 4, blocks: 100 };

fn id(name: char) -> ClientId {
    ClientId(name.into())
}

fn need(places: u32, blocks: u32) -> Need {
    Need { places, blocks }
}

/// Lets in whoever may, until nobody does.
fn enter_all(line: &mut Line, dormant: f64) -> Vec<u64> {
    std::iter::from_fn(|| line.enter(dormant)).collect()
}

/// Each case: requests in line as client and blocks, and the order in which they enter, by their place in line,
/// as those before them end.
#[rstest]
#[case::one_client_in_order("a1 a2 a3", "0 1 2")]
#[case::clients_take_turns("a1 a1 a1 b1 b1", "3 0 1 4 2")]
#[case::a_small_one_waits_behind_its_clients_large_one("a90 a90 a1", "0 1 2")]
#[case::who_holds_little_goes_first("a50 a50 a50 b10 b10 b10", "3 0 4 5 1 2")]
#[case::larger_than_the_room("a200 b1", "1 0")]
fn requests_enter(#[case] asked: &str, #[case] want: &str) {
    let mut line = Line::new(ROOM, 99);
    let asked: Vec<(ClientId, Need)> = asked
        .split(' ')
        .map(|one| (id(one.chars().next().unwrap()), need(1, one[1..].parse().unwrap())))
        .collect();
    asked.iter().for_each(|&(client, need)| assert!(line.join(client, need).is_ok()));
    let (mut inside, mut order) = (VecDeque::new(), Vec::new());
    while line.waiting() > 0 {
        let entered = enter_all(&mut line, 0.0);
        inside.extend(entered.iter().copied());
        order.extend(entered.iter().map(ToString::to_string));
        if let Some(ticket) = inside.pop_front() {
            let (client, need) = asked[ticket as usize];
            line.end(client, need);
        }
    }
    assert_eq!(order.join(" "), want);
}

#[test]
fn who_needs_more_than_is_left_waits_for_it() {
    let mut line = Line::new(ROOM, 9);
    line.join(id('a'), need(1, 60)).unwrap();
    line.join(id('a'), need(1, 60)).unwrap();
    assert_eq!(enter_all(&mut line, 0.0), [0]);
    line.end(id('a'), need(1, 60));
    assert_eq!(enter_all(&mut line, 0.0), [1]);
}

#[test]
fn a_newcomer_does_not_wait_for_a_crowd_that_holds_all_places() {
    let mut line = Line::new(ROOM, 99);
    (0..9).for_each(|_| assert!(line.join(id('a'), need(1, 1)).is_ok()));
    assert_eq!(enter_all(&mut line, 0.0), [0, 1, 2, 3]);
    assert_eq!(line.must_end(id('a'), need(1, 1), 0.0), 1.5);
    assert_eq!(line.must_end(id('b'), need(1, 1), 0.0), 0.0);
    line.join(id('b'), need(1, 1)).unwrap();
    // An eighth of four places is one, and a's others wait on.
    assert_eq!(enter_all(&mut line, 0.0), [9]);
    line.join(id('b'), need(1, 1)).unwrap();
    assert_eq!(enter_all(&mut line, 0.0), []);
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one_to_end() {
    let mut line = Line::new(ROOM, 99).with_spare_blocks(100);
    (0..2).for_each(|_| assert!(line.join(id('a'), need(1, 90)).is_ok()));
    assert_eq!(enter_all(&mut line, 0.0), [0]);
    line.join(id('b'), need(1, 20)).unwrap();
    assert_eq!(enter_all(&mut line, 0.0), [2], "a's other one waits for the room that is left");
}

#[test]
fn short_prompts_of_others_pass_long_ones_that_wait_but_not_for_ever() {
    let mut line = Line::new(ROOM, 99).with_spare_blocks(100);
    "abc".chars().for_each(|name| assert!(line.join(id(name), need(1, 90)).is_ok()));
    "defghi".chars().for_each(|name| assert!(line.join(id(name), need(0, 20)).is_ok()));
    // Once 100 blocks have passed a's 90, a is next, also where it has to wait for room.
    assert_eq!(enter_all(&mut line, 0.0), [3, 4, 5, 6, 7]);
    "defg".chars().for_each(|name| line.end(id(name), need(0, 20)));
    assert_eq!(enter_all(&mut line, 0.0), []);
    line.end(id('h'), need(0, 20));
    assert_eq!(enter_all(&mut line, 0.0), [0], "and b, which has been passed as often, before i");
}

#[test]
fn what_is_dormant_gives_way() {
    let mut line = Line::new(ROOM, 99);
    (0..5).for_each(|_| assert!(line.join(id('a'), need(1, 25)).is_ok()));
    assert_eq!(enter_all(&mut line, 0.0), [0, 1, 2, 3]);
    assert_eq!(line.enter(0.2), None);
    assert_eq!(line.must_end(id('a'), need(1, 25), 0.0), 0.5);
    assert_eq!(line.enter(0.25), Some(4));
    assert_eq!(line.inside(), need(5, 125));
}

#[test]
fn half_of_the_line_is_for_one_client() {
    let mut line = Line::new(need(0, 0), 4);
    let asks = ['a', 'a', 'a', 'b', 'c', 'd'].map(|name| line.join(id(name), need(1, 1)).is_ok());
    assert_eq!(asks, [true, true, false, true, true, false]);
    assert_eq!(line.wanted(), need(4, 4));
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Join(u8, u32),
    Leave(usize),
    End(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0..3u8, 1..60u32).prop_map(|(client, blocks)| Act::Join(client, blocks)),
        1 => any::<usize>().prop_map(Act::Leave),
        2 => any::<usize>().prop_map(Act::End),
    ];
    proptest::collection::vec(act, 1..120)
}

proptest! {
    /// Against a list of who is inside: counts are right, the room is kept, and somebody is always let in.
    #[test]
    fn the_line_keeps_its_room_and_moves(acts in acts()) {
        let mut line = Line::new(ROOM, 20);
        let mut asked: Vec<(ClientId, Need)> = Vec::new();
        let (mut waiting, mut inside) = (Vec::<u64>::new(), Vec::<u64>::new());
        for act in acts {
            match act {
                Act::Join(client, blocks) => {
                    let ask = (ClientId(client.into()), need(1, blocks));
                    if let Ok(ticket) = line.join(ask.0, ask.1) {
                        prop_assert_eq!(ticket as usize, asked.len());
                        asked.push(ask);
                        waiting.push(ticket);
                    }
                }
                Act::Leave(at) if !waiting.is_empty() => {
                    let ticket = waiting.swap_remove(at % waiting.len());
                    prop_assert!(line.leave(ticket));
                    prop_assert!(!line.leave(ticket));
                }
                Act::End(at) if !inside.is_empty() => {
                    let (client, need) = asked[inside.swap_remove(at % inside.len()) as usize];
                    line.end(client, need);
                }
                Act::Leave(_) | Act::End(_) => {}
            }
            for ticket in enter_all(&mut line, 0.0) {
                waiting.retain(|other| *other != ticket);
                inside.push(ticket);
            }
            let sum = inside.iter().fold(need(0, 0), |sum, at| sum.plus(asked[*at as usize].1));
            prop_assert_eq!(line.inside(), sum);
            prop_assert_eq!(line.waiting(), waiting.len());
            prop_assert!(sum.places <= ROOM.places + 1 && sum.blocks <= ROOM.blocks);
            prop_assert!(!inside.is_empty() || waiting.is_empty(), "nobody is let in");
        }
    }
}
