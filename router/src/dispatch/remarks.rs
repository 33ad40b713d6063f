//! What operators should know of workers that are there, and of no use to this router.

use std::collections::BTreeSet;

use scheduler::{ClusterSnapshot, WorkerView};
use words::NodeState;

/// Of workers, and of models, so many are named.
const NAMES_TOLD_MAX: usize = 4;

/// What to tell of a cluster without members.
pub(super) fn nobody(view: &ClusterSnapshot) -> Option<&'static str> {
    view.workers.is_empty().then_some(
        "no worker is registered: those of a cluster have the --etcd and the --namespace of their routers",
    )
}

/// What to tell of members that don't report to this router.
pub(super) fn unheard(view: &ClusterSnapshot) -> Option<String> {
    let is_silent = |worker: &&WorkerView| !worker.healthy && worker.info.state != NodeState::Gone;
    let silent: Vec<_> =
        view.workers.iter().filter(is_silent).map(|worker| &worker.info.address).collect();
    if silent.is_empty() {
        return None;
    }
    let named = silent.iter().take(NAMES_TOLD_MAX);
    let named: Vec<String> = named.map(|it| format!("{} at {}", it.worker, it.uri)).collect();
    let more = match silent.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "no reports come from {}{more}: do they run, are these addresses reachable from here, and are the \
         certificates' authority or the cluster secret the same on both sides? The log says why",
        named.join(", ")
    ))
}

/// What to tell of workers that serve something else than this router does.
pub(super) fn strangers(view: &ClusterSnapshot, model: &str) -> Option<String> {
    let models = view.workers.iter().map(|worker| worker.info.fingerprint.model.as_str());
    let others: Vec<&str> = models.filter(|other| *other != model).collect();
    let names: BTreeSet<&str> = others.iter().copied().collect();
    let names: Vec<&str> = names.into_iter().take(NAMES_TOLD_MAX).collect();
    (!others.is_empty()).then(|| {
        format!(
            "{} workers serve {} and this router {model}: give all the same --served-model-name",
            others.len(),
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster::testing::worker;
    use rstest::rstest;
    use words::Role;

    use super::*;

    fn view(silent: &[&str]) -> ClusterSnapshot {
        let of = |id: &str, healthy| {
            let info = Arc::new(worker(id, Role::Decode));
            WorkerView { healthy, ..WorkerView::new(info) }
        };
        let silent = silent.iter().map(|id| of(id, false));
        ClusterSnapshot { workers: silent.chain([of("well", true)]).collect() }
    }

    #[rstest]
    #[case::all_report(&[], None)]
    #[case::one(&["d0"], Some("no reports come from d0 at http://127.0.0.1:1: do they run"))]
    #[case::many(&["a", "b", "c", "d", "e", "f"], Some("d at http://127.0.0.1:1 and 2 more: "))]
    fn members_that_do_not_report_are_named(#[case] silent: &[&str], #[case] told: Option<&str>) {
        let said = unheard(&view(silent));
        assert_eq!(said.is_some(), told.is_some(), "{said:?}");
        assert!(said.unwrap_or_default().contains(told.unwrap_or_default()));
    }

    #[test]
    fn a_cluster_without_members_is_told_where_they_would_be() {
        assert!(nobody(&ClusterSnapshot::default()).unwrap().contains("--namespace"));
        assert_eq!(nobody(&view(&["d0"])), None);
    }

    #[test]
    fn who_has_left_is_not_missed() {
        let mut view = view(&["d0"]);
        Arc::make_mut(&mut view.workers[0].info).state = NodeState::Gone;
        assert_eq!(unheard(&view), None);
    }
}
