//! What a decision considered, for those who ask why.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use words::WorkerId;

use super::{CachedTokens, Part, Path, Placement, Refusal, Rejection, WorkerView};
use crate::cost::Terms;

/// Candidates that are spelled out.
const TOLD_MAX: usize = 32;

/// Takes down what a decision considers: every worker in the snapshot, once for each part it was considered in, those that
/// could not be asked first.
///
/// A request without notes costs none: hardly any decision is ever asked about.
#[derive(Debug, Default)]
pub struct Notes(RefCell<Vec<Candidate>>);

/// One worker in one part, as the decision saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Who.
    pub worker: WorkerId,
    /// As what.
    pub part: Part,
    /// What it is thought to have of the prompt.
    pub cached: CachedTokens,
    /// What came of it.
    pub verdict: Verdict,
}

/// What a decision made of a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It could have been chosen, at this cost.
    Possible(Terms),
    /// It could have been chosen for want of others: what is generated there would miss its target.
    Strained(Terms),
    /// It could not.
    Rejected(Rejection),
}

// === impl Notes ===

impl Notes {
    pub(super) fn add(&self, view: &WorkerView, part: Part, verdict: Verdict) {
        let worker = view.info.address.worker.clone();
        self.0.borrow_mut().push(Candidate { worker, part, cached: view.cached, verdict });
    }

    /// Everything that was taken down.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        self.0.borrow().clone()
    }

    /// The decision and what it was made from, in a line.
    #[must_use]
    pub fn explain(&self, decision: &Result<&Placement, Refusal>) -> String {
        let mut line = match decision {
            Ok(placement) => placement.to_string(),
            Err(refusal) => refusal.to_string(),
        };
        let candidates = self.0.borrow();
        for candidate in candidates.iter().take(TOLD_MAX) {
            write!(line, "; {candidate}").expect("a string takes all");
        }
        if candidates.len() > TOLD_MAX {
            write!(line, "; and {} more", candidates.len() - TOLD_MAX).expect("a string takes all");
        }
        line
    }
}

// === impl Candidate ===

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.worker, self.part.name())?;
        if self.cached.disk > 0 {
            write!(f, "cached {}, ", self.cached.disk)?;
        }
        match self.verdict {
            Verdict::Possible(terms) => write!(f, "{terms}"),
            Verdict::Strained(terms) => write!(f, "{terms}, beyond-target"),
            Verdict::Rejected(rejection) => f.write_str(rejection.name()),
        }
    }
}

// === impl Placement ===

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Path::Handoff, Some(prefill)) = (self.path, self.prefill.first()) {
            write!(f, "{} -> ", prefill.worker)?;
        }
        write!(f, "{} ({}): {}", self.decode.worker, self.reason.name(), self.terms)
    }
}

// === impl Part ===

impl Part {
    /// The name used in explanations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Both => "both",
        }
    }
}

// === impl Rejection ===

impl Rejection {
    /// The name used in explanations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OtherModel => "other-model",
            Self::OtherFingerprint => "other-fingerprint",
            Self::NotServing => "not-serving",
            Self::Unhealthy => "unhealthy",
            Self::Excluded => "excluded",
            Self::TooSmall => "too-small",
            Self::Full => "full",
        }
    }
}
