//! Which weights new requests go to, and telling operators when there are several.

use parking_lot::Mutex;
use scheduler::placement::{Edition, choose, editions};
use scheduler::{ClusterSnapshot, Refusal};
use words::Fingerprint;

use super::EditionReadiness;
use difference::Difference;

mod difference;

/// Keeps new requests on one edition at a time.
pub(super) struct Rollout {
    model: String,
    wanted: Option<String>,
    state: Mutex<State>,
    /// Whose name was asked for last, and that name: it is a digest, and each request asks for it.
    named: Mutex<Option<(Fingerprint, String)>>,
}

#[derive(Default)]
struct State {
    present: Option<Fingerprint>,
    /// How many editions were told of last.
    told: usize,
}

// === impl Rollout ===

impl Rollout {
    /// - `wanted`: the beginning of a weights' digest or of a fingerprint's name, if an operator
    ///   says where requests go.
    pub(super) fn new(model: String, wanted: Option<String>) -> Self {
        Self { model, wanted, state: Mutex::default(), named: Mutex::default() }
    }

    /// Where new requests go; `None` while nobody takes work.
    ///
    /// # Errors
    /// If an operator asked for weights that no worker has.
    pub(super) fn choose(&self, view: &ClusterSnapshot) -> Result<Option<Fingerprint>, Refusal> {
        let editions = editions(view, &self.model);
        let mut state = self.state.lock();
        let chosen = choose(&editions, self.wanted.as_deref(), state.present.as_ref());
        match chosen {
            None if self.wanted.is_some() && !editions.is_empty() => Err(Refusal::WeightsMissing),
            None => Ok(None),
            Some(chosen) => {
                state.note(&editions, chosen);
                Ok(state.present.clone())
            }
        }
    }

    /// What `fingerprint` is called.
    pub(super) fn name_of(&self, fingerprint: &Fingerprint) -> String {
        let mut named = self.named.lock();
        match &*named {
            Some((known, name)) if known == fingerprint => name.clone(),
            _ => named.insert((fingerprint.clone(), fingerprint.name())).1.clone(),
        }
    }

    /// The editions, newest first.
    pub(super) fn readiness(&self, view: &ClusterSnapshot) -> Vec<EditionReadiness> {
        let chosen = self.choose(view).ok().flatten();
        let editions = editions(view, &self.model);
        let of = |edition: &Edition<'_>| EditionReadiness {
            fingerprint: edition.fingerprint.name(),
            weights: edition.fingerprint.weights.clone(),
            kv_layout: edition.fingerprint.kv_layout.to_string(),
            prefill: edition.prefill,
            decode: edition.decode,
            takes_new: chosen.as_ref().is_some_and(|it| it.computes_as(edition.fingerprint)),
        };
        editions.iter().map(of).collect()
    }

    /// What an operator should know about them.
    pub(super) fn remark(&self, editions: &[EditionReadiness]) -> Option<String> {
        let chosen = editions.iter().find(|edition| edition.takes_new);
        match (chosen, &self.wanted) {
            (None, Some(wanted)) if !editions.is_empty() => {
                Some(format!("no worker has the weights asked for, {wanted}"))
            }
            (Some(chosen), _) if editions.len() > 1 => {
                let of = |it: &EditionReadiness| (it.weights.clone(), it.kv_layout.clone());
                let difference = Difference::among(editions.iter().map(of));
                let (name, advice) = (&chosen.fingerprint, difference.advice());
                Some(format!("workers have {difference}: new requests go to {name}{advice}"))
            }
            _ => None,
        }
    }
}

// === impl State ===

impl State {
    /// Tells of a change, once.
    fn note(&mut self, editions: &[Edition<'_>], chosen: &Fingerprint) {
        let moved = !self.present.as_ref().is_some_and(|present| present.computes_as(chosen));
        let told = std::mem::replace(&mut self.told, editions.len());
        if moved {
            self.present = Some(chosen.clone());
        }
        if editions.len() > 1 && (moved || told != editions.len()) {
            let there: Vec<String> = editions.iter().map(describe).collect();
            let of = |it: &Edition<'_>| {
                (it.fingerprint.weights.clone(), it.fingerprint.kv_layout.to_string())
            };
            let difference = Difference::among(editions.iter().map(of));
            tracing::warn!(
                to = chosen.name(),
                editions = there.join(", "),
                "workers of one model have {difference}: new requests go to one of them{}",
                difference.advice()
            );
        } else if told > 1 && editions.len() == 1 {
            tracing::info!(fingerprint = chosen.name(), "all workers compute alike again");
        }
    }
}

fn describe(edition: &Edition<'_>) -> String {
    let Edition { fingerprint, prefill, decode, .. } = edition;
    format!("{} on {prefill} prefill and {decode} decode workers", fingerprint.name())
}
