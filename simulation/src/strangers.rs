//! Those who belong to no cluster, or not in that place, and call its workers all the same.

mod calls;
mod disguise;
mod impostor;

use std::time::Duration;

use cluster::Membership as _;
use words::WorkerInfo;

use self::calls::{Call, was_served};
use self::disguise::Disguise;
use crate::nodes::Place;

/// How often they try everybody.
const EVERY: Duration = Duration::from_millis(2500);

/// Makes every call to every worker, in every disguise that there is. None may be served.
pub async fn strangers(place: Place) {
    let membership = place.membership();
    let view = membership.view();
    let disguises = Disguise::all(&place);
    place.tasks.spawn(impostor::pose(place.clone(), membership.clone()));
    loop {
        tokio::time::sleep(EVERY).await;
        let workers: Vec<WorkerInfo> = view.borrow().workers.values().cloned().collect();
        let workers = workers.iter().filter(|it| &*it.address.worker.0 != impostor::NAME);
        for worker in workers {
            for disguise in &disguises {
                intrude(worker, disguise, &place).await;
            }
        }
    }
}

/// Tries everything at a worker that somebody in this disguise may not do.
async fn intrude(worker: &WorkerInfo, disguise: &Disguise, place: &Place) {
    for call in Call::ALL.into_iter().filter(|call| !disguise.may(*call)) {
        let answer = call.make(worker, disguise.channel(worker)).await;
        if was_served(&answer) {
            let (worker, name) = (&worker.address.worker, &disguise.name);
            place.verdicts.violated(format!("{worker} let {name} {}", call.what()));
        }
        if let Err(refused) = answer {
            tracing::debug!(who = disguise.name, ?call, %refused, "a stranger was refused");
            let code = refused.code();
            place.coverage.reached(format!("stranger, {}: {code:?}", disguise.name));
        }
    }
}
