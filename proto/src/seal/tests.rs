use std::fmt::Debug;
use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;
use words::{
    ClientId, FinishReason, Generation, RequestId, SampledToken, Sampling, StopRules, Targets,
};
use words::{TenantSalt, TokenLogprob};

use super::*;
use crate::v1::generate_response::{Event, Tokens};

fn generation() -> Generation {
    Generation {
        id: RequestId("req-1".into()),
        prompt: [1, 200, 70_000].into(),
        generated: [9].into(),
        choices: vec![2],
        sampling: Sampling {
            seed: 7,
            temperature: 0.5,
            logit_bias: vec![(5, -1.5)],
            logprobs: Some(2),
            ..Sampling::default()
        },
        stop: StopRules { max_tokens: 8, min_tokens: 2, stop_token_ids: vec![4], ignore_eos: true },
        prompt_logprobs: Some(3),
        salt: TenantSalt([1, 2].into()),
        client: ClientId(5),
        targets: Targets { ttft: Some(Duration::from_millis(300)), ..Targets::default() },
    }
}

fn address() -> v1::Address {
    v1::Address { worker_id: "p-1".into(), incarnation: 77, uri: "http://h:1".into() }
}

fn generate() -> v1::GenerateRequest {
    let request = v1::GenerateRequest {
        generation: Some((&generation()).into()),
        deadline_ms: 1000,
        incarnation: 3,
        prefill_peers: vec![address()],
        seal: 0,
        start_within_ms: 500,
        step_max_us: 700,
        waited_us: 80_000,
    };
    request.sealed(0)
}

fn prefill() -> v1::PrefillRequest {
    let target = v1::HandoffTarget {
        handoff_id: vec![7; 16],
        address: Some(address()),
        transports: vec!["grpc".into()],
        held_blocks: 2,
        kv_layout: "2x2".into(),
    };
    let request = v1::PrefillRequest {
        generation: Some((&generation()).into()),
        deadline_ms: 1000,
        incarnation: 3,
        target: Some(target),
        seal: 0,
        start_within_ms: 500,
        waited_us: 80_000,
    };
    request.sealed(0)
}

fn answer(event: Event) -> v1::GenerateResponse {
    v1::GenerateResponse { event: Some(event), seal: 0 }
}

fn token(index: u32) -> v1::GenerateResponse {
    let logprob = Some(TokenLogprob { logprob: -0.5, top: vec![(3, -0.5), (9, -1.0)] });
    let token = SampledToken { choice: 0, index, token: 12, logprob };
    answer(Event::Tokens(Tokens { tokens: vec![(&token).into()] }))
}

/// Flips each bit of the message's encoding in turn. What still parses is the same message, or one whose
/// seal is wrong.
fn every_flip_is_found<M>(sealed: &M, key: u64)
where
    M: Sealed + Default + Clone + PartialEq + Debug,
{
    let bytes = sealed.encode_to_vec();
    assert_eq!(M::decode(&bytes[..]).as_ref(), Ok(sealed));
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(mut message) = M::decode(&flipped[..]) else { continue };
        let found = message.check_seal(key).is_err();
        assert!(found || message == *sealed, "bit {bit} of {message:?}");
    }
}

#[test]
fn a_flipped_bit_of_a_generation_is_found() {
    every_flip_is_found(&v1::Generation::from(&generation()), 0);
}

/// The generation's own bits are the generation's own seal's to find: both are checked by each receiver.
#[test]
fn a_flipped_bit_of_a_call_is_found() {
    let bytes = generate().encode_to_vec();
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(mut call) = v1::GenerateRequest::decode(&flipped[..]) else { continue };
        let sealed = call.check_seal(0).is_ok();
        let work = call.generation.clone().map(Generation::try_from);
        let believed = sealed && matches!(work, Some(Ok(_)));
        assert!(!believed || call == generate(), "bit {bit} of {call:?}");
    }
    let bytes = prefill().encode_to_vec();
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(mut call) = v1::PrefillRequest::decode(&flipped[..]) else { continue };
        let sealed = call.check_seal(0).is_ok();
        let work = call.generation.clone().map(Generation::try_from);
        let believed = sealed && matches!(work, Some(Ok(_)));
        assert!(!believed || call == prefill(), "bit {bit} of {call:?}");
    }
}

#[test]
fn a_flipped_bit_of_an_answer_is_found() {
    let mut chain = SealChain::after(5);
    for message in [
        answer(Event::Started(v1::generate_response::Started {
            path: 1,
            prefill_worker_id: "p".into(),
            cached_tokens: 16,
        })),
        token(0),
        answer(Event::Finished(v1::Finished::new(0, FinishReason::Stop(12)))),
    ] {
        let key = chain.last;
        every_flip_is_found(&chain.seal(message), key);
    }
}

#[test]
fn a_flipped_bit_of_a_transfer_message_is_found() {
    use v1::push_request::Message;
    let pages = v1::Pages {
        sequence: 3,
        layer_begin: 1,
        layer_end: 2,
        block_begin: 4,
        block_count: 1,
        data: bytes::Bytes::new(),
        page_digests: vec![u64::MAX],
    };
    let commit = v1::CommitRecord {
        tokens: 70,
        block_begin: 1,
        block_count: 4,
        layers: 3,
        digest: 9,
        context: vec![5; 16],
    };
    for message in [Message::Pages(pages), Message::Commit(commit)] {
        let sealed = v1::PushRequest { message: Some(message), seal: 0 }.sealed(8);
        every_flip_is_found(&sealed, 8);
    }
    use v1::push_response::Message as Reply;
    let span = v1::PageSpan { layer_begin: 0, layer_end: 2, block_begin: 3, block_count: 4 };
    for reply in [
        Reply::Opened(v1::Opened { window_bytes: 1 << 20 }),
        Reply::Ack(v1::Ack { sequence: 3 }),
        Reply::Missing(v1::Missing { spans: vec![span] }),
        Reply::Verified(v1::Verified { pages: 12 }),
        Reply::Rejected(v1::Rejected { reason: 3, detail: "no".into() }),
    ] {
        let sealed = v1::PushResponse { message: Some(reply), seal: 0 }.sealed(8);
        every_flip_is_found(&sealed, 8);
    }
}

#[test]
fn page_data_is_left_to_its_digests_and_stays() {
    let data = bytes::Bytes::from(vec![1; 100]);
    let pages = v1::Pages { data: data.clone(), ..v1::Pages::default() };
    let message = Some(v1::push_request::Message::Pages(pages));
    let mut sealed = v1::PushRequest { message, seal: 0 }.sealed(8);
    assert_eq!(sealed.page_data_mut().cloned(), Some(data));
    *sealed.page_data_mut().unwrap() = bytes::Bytes::new();
    assert!(sealed.check_seal(8).is_ok());
}

#[rstest]
#[case::without_one(0, "is missing")]
#[case::with_another(1, "is of another message")]
fn a_message_under_no_seal_of_its_own_is_refused(#[case] seal: u64, #[case] problem: &str) {
    let error = Generation::try_from(v1::Generation::under_seal(&generation(), seal)).unwrap_err();
    assert!(error.damaged && error.field == "seal");
    assert!(error.problem.starts_with(problem), "{error}");
}

/// What is wrong in itself is found before anybody looks at what it says.
#[test]
fn a_damaged_field_is_not_the_senders_fault() {
    let mut wire = v1::Generation::from(&generation());
    wire.sampling.as_mut().unwrap().temperature = f32::NAN;
    assert!(Generation::try_from(wire).unwrap_err().damaged);
}

#[test]
fn a_generation_goes_on_under_the_seal_that_it_came_with() {
    let wire = v1::Generation::from(&generation());
    let seal = wire.seal;
    let received = Generation::try_from(wire.clone()).unwrap();
    assert_eq!(v1::Generation::under_seal(&received, seal), wire);
}

fn stream(tokens: u32) -> Vec<v1::GenerateResponse> {
    let mut chain = SealChain::after(5);
    (0..tokens).map(|index| chain.seal(token(index))).collect()
}

/// How many of `messages` are believed.
fn believed(messages: Vec<v1::GenerateResponse>) -> usize {
    let mut chain = SealChain::after(5);
    let is_next = |mut message: v1::GenerateResponse| chain.check(&mut message).is_ok();
    messages.into_iter().map(is_next).take_while(|&is_next| is_next).count()
}

proptest! {
    #[test]
    fn a_message_left_out_doubled_or_moved_is_found(
        tokens in 2..20_u32, from in 0..20_usize, to in 0..20_usize,
    ) {
        let whole = stream(tokens);
        let (from, to) = (from % whole.len(), to % whole.len());
        prop_assert_eq!(believed(whole.clone()), whole.len());
        let mut less = whole.clone();
        less.remove(from);
        prop_assert_eq!(believed(less), from);
        let mut more = whole.clone();
        more.insert(from, whole[from].clone());
        prop_assert_eq!(believed(more), from + 1);
        let mut moved = whole.clone();
        moved.swap(from, to);
        prop_assert_eq!(believed(moved), if from == to { whole.len() } else { from.min(to) });
    }
}

#[test]
fn another_streams_message_is_found() {
    let mut other = SealChain::after(6).seal(token(0));
    assert!(SealChain::after(5).check(&mut other).is_err());
}
