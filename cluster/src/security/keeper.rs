//! Reads certificates again when their files change, and says in time that they end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::{Certificates, Refreshed};
use crate::telemetry::Metrics;

/// How often files are looked at. Who renews a certificate does so days before its end.
const LOOK: Duration = Duration::from_secs(2);
/// How often the coming end of a certificate is said.
const WARN: Duration = Duration::from_secs(3600);

/// Keeps a node's certificates fresh.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    kept: Vec<Kept>,
}

#[derive(Clone, Debug)]
struct Kept {
    name: &'static str,
    certificates: Arc<Certificates>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    certificate: &'static str,
}

/// Tells whether strangers may come and nothing keeps them out: loudly, once, and in a metric.
pub fn register_lock(metrics: &Metrics, insecure: bool) {
    let help = "1 where whoever reaches the node's ports may use them (--insecure)";
    metrics.gauge("baton_insecure", help).set(insecure.into());
    if insecure {
        warn!("INSECURE: whoever reaches this node's ports may use them (--insecure)");
    }
}

// === impl Keeper ===

impl Keeper {
    /// Also keeps `certificates`, called `name` in logs and metrics, if they can end.
    #[must_use]
    pub fn with(mut self, name: &'static str, certificates: Option<&Arc<Certificates>>) -> Self {
        let ending = certificates.filter(|certificates| certificates.validity().is_some());
        self.kept.extend(ending.map(|it| Kept { name, certificates: it.clone() }));
        self
    }

    /// Tells for how long each certificate still holds.
    pub fn register(&self, metrics: &Metrics) {
        let help = "Seconds until a certificate ends; negative after it";
        let left = metrics.gauges::<Labels>("baton_certificate_expiry_seconds", help);
        let kept = self.kept.clone();
        metrics.before_scrape(move || {
            for Kept { name, certificates } in &kept {
                if let Some(validity) = certificates.validity() {
                    let labels = Labels { certificate: name };
                    left.get_or_create(&labels).set(validity.left_s(SystemTime::now()));
                }
            }
        });
    }

    /// Looks at the files until dropped; returns if there are none.
    pub async fn run(self) {
        if self.kept.is_empty() {
            return;
        }
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for look in 0_u64.. {
            looks.tick().await;
            let (kept, warns) = (self.kept.clone(), look % (WARN.as_secs() / LOOK.as_secs()) == 0);
            let looked = tokio::task::spawn_blocking(move || {
                for certificate in &kept {
                    certificate.look(warns);
                }
            });
            // It ends early only with the runtime.
            let _ = looked.await;
        }
    }
}

// === impl Kept ===

impl Kept {
    fn look(&self, warns: bool) {
        match self.certificates.refresh() {
            Refreshed::Same => {}
            Refreshed::Changed => info!(certificate = self.name, "changed to a new certificate"),
            Refreshed::Refused(error) => {
                error!(certificate = self.name, %error, "the old certificate stays: the new one can't be used");
            }
        }
        if let Some(validity) = self.certificates.validity().filter(|_| warns) {
            let left_s = validity.left_s(SystemTime::now());
            if left_s < 0 {
                error!(certificate = self.name, "the certificate has expired: renew it");
            } else if validity.is_late(SystemTime::now()) {
                warn!(certificate = self.name, left_s, "the certificate ends soon: renew it");
            }
        }
    }
}
