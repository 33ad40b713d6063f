//! Whom a worker hands prompts and blocks to: members of its cluster, and nobody else.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::Members;
use cluster::security::{Identity, Shown};
use http::Uri;
use tokio::sync::watch;
use tokio::time::timeout;
use words::{Address, Role};

use crate::WorkerError;

/// How long a peer that isn't known yet is waited for: the caller's view may be ahead of ours by
/// as long as the news of a member travel.
const NEWS_PATIENCE: Duration = Duration::from_millis(300);

/// The members, as this worker knows them.
#[derive(Clone)]
pub struct Peers {
    view: watch::Receiver<Arc<Members>>,
    /// Whether peers prove who they are when they are dialled.
    proven: bool,
}

// === impl Peers ===

impl Peers {
    /// Those of `view`.
    ///
    /// - `proven`: whether peers prove who they are when they are dialled.
    #[must_use]
    pub fn new(view: watch::Receiver<Arc<Members>>, proven: bool) -> Self {
        Self { view, proven }
    }

    /// Refuses an address that a caller names, unless a member of `role` is there.
    ///
    /// While membership is away, a member that came back since is known to the caller only. Then the
    /// caller is believed where that can do no harm: if the peer has to prove who it is, or is on
    /// this machine.
    ///
    /// # Errors
    /// [`WorkerError::Stranger`]: nothing was said to it.
    pub async fn check(&self, address: &Address, role: Role) -> Result<(), WorkerError> {
        let mut view = self.view.clone();
        let settled = view
            .wait_for(|members| is_member(members, address, role) || members.stale_since.is_some());
        let members = match timeout(NEWS_PATIENCE, settled).await {
            Ok(Ok(members)) => members.clone(),
            // No news of it in time, or membership is closed.
            Ok(Err(_)) | Err(_) => self.view.borrow().clone(),
        };
        let is_believed = members.stale_since.is_some() && (self.proven || is_local(&address.uri));
        if is_member(&members, address, role) || is_believed {
            return Ok(());
        }
        Err(WorkerError::Stranger { worker: address.worker.to_string(), uri: address.uri.clone() })
    }

    /// Refuses a worker that speaks for another: blocks go to whoever asked for them.
    ///
    /// # Errors
    /// [`WorkerError::Stranger`].
    pub fn check_speaker(caller: &Shown, address: &Address) -> Result<(), WorkerError> {
        let speaks = |identity: &Identity| identity.is_worker(&address.worker);
        if caller.identity().is_none_or(speaks) {
            return Ok(());
        }
        Err(WorkerError::Stranger { worker: address.worker.to_string(), uri: address.uri.clone() })
    }
}

fn is_member(members: &Members, address: &Address, role: Role) -> bool {
    members.lives().any(|known| known.role == role && known.address == *address)
}

fn is_local(uri: &str) -> bool {
    let uri: Option<Uri> = uri.parse().ok().filter(|uri: &Uri| uri.scheme().is_some());
    uri.as_ref().and_then(Uri::host).is_some_and(|host| {
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(addr) => addr.is_loopback(),
            Err(_) => host == "localhost",
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use cluster::testing::worker;
    use rstest::rstest;
    use words::Incarnation;

    use super::*;

    fn peers(proven: bool, stale: bool) -> (Peers, watch::Sender<Arc<Members>>) {
        let mut members = Members::default();
        let mut known = worker("p", Role::Prefill);
        known.address.uri = "http://10.0.0.1:7001".to_owned();
        members.workers.insert(known.address.worker.clone(), known);
        members.stale_since = stale.then(Instant::now);
        let (publish, view) = watch::channel(Arc::new(members));
        (Peers::new(view, proven), publish)
    }

    fn address(id: &str, incarnation: u64, uri: &str) -> Address {
        let incarnation = Incarnation(incarnation);
        Address { worker: id.into(), incarnation, uri: uri.to_owned() }
    }

    #[rstest]
    #[case::member("p", 1, "http://10.0.0.1:7001", true)]
    #[case::another_place("p", 1, "http://10.6.6.6:7001", false)]
    #[case::another_life("p", 2, "http://10.0.0.1:7001", false)]
    #[case::unknown("q", 1, "http://10.0.0.1:7001", false)]
    #[case::unknown_here("q", 1, "http://127.0.0.1:7001", false)]
    #[tokio::test(start_paused = true)]
    async fn only_members_are_peers(
        #[case] id: &str,
        #[case] incarnation: u64,
        #[case] uri: &str,
        #[case] is_peer: bool,
    ) {
        let (peers, _publish) = peers(false, false);
        let checked = peers.check(&address(id, incarnation, uri), Role::Prefill).await;
        assert_eq!(checked.is_ok(), is_peer, "{checked:?}");
        assert!(peers.check(&address("p", 1, "http://10.0.0.1:7001"), Role::Decode).await.is_err());
    }

    /// While membership is away, an address of a caller is believed if no harm can come of it.
    #[rstest]
    #[case::proves_itself(true, "http://10.0.0.9:1", true)]
    #[case::anybody(false, "http://10.0.0.9:1", false)]
    #[case::here(false, "http://127.0.0.1:9", true)]
    #[case::here_by_name(false, "http://localhost:9", true)]
    #[case::here_in_v6(false, "http://[::1]:9", true)]
    #[case::nonsense(false, "127.0.0.1", false)]
    #[tokio::test(start_paused = true)]
    async fn while_membership_is_away(
        #[case] proven: bool,
        #[case] uri: &str,
        #[case] is_peer: bool,
    ) {
        let (peers, _publish) = peers(proven, true);
        assert_eq!(peers.check(&address("q", 7, uri), Role::Prefill).await.is_ok(), is_peer);
    }

    #[tokio::test]
    async fn a_member_whose_news_are_on_their_way_is_waited_for() {
        let (peers, publish) = peers(false, false);
        let new = worker("q", Role::Prefill);
        let checking = peers.check(&new.address, Role::Prefill);
        let (checked, ()) = tokio::join!(checking, async {
            tokio::task::yield_now().await;
            publish.send_modify(|members| {
                let workers = &mut Arc::make_mut(members).workers;
                workers.insert(new.address.worker.clone(), new.clone());
            });
        });
        checked.unwrap();
    }

    #[test]
    fn blocks_go_to_whoever_asked_for_them() {
        let speaker = |uri: &str| Shown::from(uri.parse::<Identity>().unwrap());
        let d = address("d", 1, "http://10.0.0.2:1");
        assert!(Peers::check_speaker(&speaker("baton://c/decode/d"), &d).is_ok());
        assert!(Peers::check_speaker(&speaker("baton://c/decode/*"), &d).is_ok());
        assert!(Peers::check_speaker(&Shown::default(), &d).is_ok(), "where nobody is asked");
        assert!(Peers::check_speaker(&speaker("baton://c/decode/e"), &d).is_err());
    }
}
