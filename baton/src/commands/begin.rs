//! What every node begins with: logs, signals, its model.

use anyhow::Result;
use cluster::telemetry::{TelemetryConfig, TelemetryGuard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::model::LocalModel;
use crate::settings::Settings;

/// A node that has begun.
pub(crate) struct Begun {
    /// Sends the last spans at the end.
    pub telemetry: TelemetryGuard,
    /// The wish that it leaves.
    pub leave: CancellationToken,
    /// Counts the wishes that it reads files again.
    pub hangups: watch::Receiver<u64>,
}

// === impl Begun ===

impl Begun {
    /// Sets up logs and signals, and says what is odd about the settings.
    ///
    /// # Errors
    /// If logs or signals can't be had.
    pub(crate) fn new(settings: &Settings, telemetry: &TelemetryConfig) -> Result<Self> {
        let telemetry = cluster::telemetry::init(telemetry)?;
        let leave = cluster::shutdown_signal()?;
        let hangups = cluster::hangups(settings.has_files_to_reread(), &leave)?;
        settings.remarks().iter().for_each(|remark| warn!("{remark}"));
        Ok(Self { telemetry, leave, hangups })
    }

    /// Finds the model, which may take a download; `None` if the node is to leave first.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) async fn model(&self, settings: &Settings) -> Result<Option<LocalModel>> {
        let request = settings.model_request();
        let find = async { tokio::task::spawn_blocking(move || request.resolve()).await? };
        self.unless_leaving(find).await
    }

    /// Waits for what takes long at a start; `None` if the node is to leave first.
    ///
    /// # Errors
    /// Those of `step`.
    pub(crate) async fn unless_leaving<T>(
        &self,
        step: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        let done = self.leave.run_until_cancelled(step).await.transpose()?;
        if done.is_none() {
            info!("leaving before anything was begun");
        }
        Ok(done)
    }
}
