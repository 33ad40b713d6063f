//! More than fits: refused at once with a time to come back, and nothing breaks.

use std::time::{Duration, Instant};

use baton_tests::client::http::chat_body;
use baton_tests::{Client, Cluster, load};
use futures::future::join_all;

const REQUESTS: usize = 120;
/// A refusal is a decision, not a time-out.
const REFUSAL_MAX: Duration = Duration::from_secs(2);

/// How one request ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Answered,
    Refused,
    Broken(String),
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_and_the_rest_is_served() {
    let mut cluster = Cluster::builder()
        .worker_args(&["--kv-blocks", "64", "--queue-max", "4", "--credit-queue-max", "4"])
        .router_args(&["--handoff", "always"])
        .start()
        .await;
    let client = cluster.client();

    let ends = join_all((0..REQUESTS).map(|number| one(&client, number))).await;

    let count = |end: &End| ends.iter().filter(|is| *is == end).count();
    let (answered, refused) = (count(&End::Answered), count(&End::Refused));
    let broken: Vec<&End> = ends.iter().filter(|end| matches!(end, End::Broken(_))).collect();
    assert!(broken.is_empty(), "{} broke: {:#?}", broken.len(), &broken[..broken.len().min(3)]);
    assert!(answered > 0 && refused > 0, "{answered} answered, {refused} refused");
    cluster.assert_clean().await;

    // And afterwards all is as before.
    load::burst(&client, 4, 8).await.assert_flawless();
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_has_a_limit_on_streams() {
    let mut cluster = Cluster::builder().router_args(&["--streams-max", "8"]).start().await;
    let client = cluster.client();

    let ends = join_all((0..REQUESTS).map(|number| one(&client, number))).await;

    let refused = ends.iter().filter(|end| **end == End::Refused).count();
    let answered = ends.iter().filter(|end| **end == End::Answered).count();
    assert_eq!(answered + refused, REQUESTS, "{ends:?}");
    assert!(answered >= 8 && refused > 0, "{answered} answered, {refused} refused");
    cluster.assert_clean().await;
}

async fn one(client: &Client, number: usize) -> End {
    let mut body = chat_body(&load::message(number), 24);
    body["ignore_eos"] = true.into();
    let started = Instant::now();
    match client.stream("/v1/chat/completions", &body).await {
        Ok(answer) => answer.flaw().map_or(End::Answered, End::Broken),
        Err(refusal) => {
            let is_429 = refusal.status.is_some_and(|status| status == 429);
            let says_when = refusal.headers.contains_key("retry-after");
            let took = started.elapsed();
            if is_429 && says_when && took < REFUSAL_MAX {
                End::Refused
            } else {
                End::Broken(format!("after {took:?}, retry-after {says_when}: {refusal}"))
            }
        }
    }
}
