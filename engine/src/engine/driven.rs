//! An engine without a thread: whoever holds it runs its turns, in whatever time there is.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use tokio::sync::{Notify, watch};

use super::core::Core;
use super::{EngineConfig, StepModel, commands_max, step_events_max};
use crate::clock;
use crate::error::EngineError;
use crate::handle::{Command, EngineHandle, EngineInfo, Exchange, SequenceError};
use kv_cache::KvRegion;

/// The loop of [`super::Engine`], a turn at a time: for a simulation, where time is not the thread's.
///
/// Dropping it ends whatever is outstanding, as the end of the thread would.
pub struct DrivenEngine<M: StepModel> {
    core: Core<M>,
    exchange: Arc<Exchange>,
    commands: Receiver<Command>,
    arrived: Arc<Notify>,
    /// Closed by the engine's end.
    _alive: watch::Sender<()>,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A step was submitted or its results were taken; the next turn belongs behind the step's time.
    Moved,
    /// There is work, and nothing could move: a reader is slow, or memory is somebody else's.
    Stalled,
    /// There is nothing to do until [`DrivenEngine::arrived`].
    Idle,
    /// It was told to stop, or nobody holds it any more.
    Over,
}

// === impl DrivenEngine ===

impl<M: StepModel> DrivenEngine<M> {
    /// An engine over `model`, and the handle that gives it work.
    ///
    /// # Errors
    /// [`EngineError::Limits`] for a configuration that couldn't work.
    pub fn new(
        model: M,
        info: EngineInfo,
        region: Arc<dyn KvRegion>,
        config: &EngineConfig,
    ) -> Result<(EngineHandle, Self), EngineError> {
        config.validate()?;
        let (sender, commands) = std::sync::mpsc::sync_channel(commands_max(&info));
        let (alive, stopped) = watch::channel(());
        let events = step_events_max(&info, config);
        let exchange = Arc::new(Exchange::new(info, region, events).without_courier());
        let limits = config.limits(exchange.info.total_blocks);
        let core = Core::new(model, Arc::clone(&exchange), limits, config.targets);
        let arrived = Arc::new(Notify::new());
        let handle =
            EngineHandle::driven(Arc::clone(&exchange), sender, stopped, Arc::clone(&arrived));
        Ok((handle, Self { core, exchange, commands, arrived, _alive: alive }))
    }

    /// Takes in what has arrived and goes one step further. Never waits.
    pub fn turn(&mut self) -> Turn {
        if !self.take_commands() || self.core.must_stop() {
            return Turn::Over;
        }
        if self.core.is_idle() {
            return Turn::Idle;
        }
        if self.core.turn(clock::now()) { Turn::Moved } else { Turn::Stalled }
    }

    /// Resolves when something may have arrived since the last turn.
    pub fn arrived(&self) -> impl Future<Output = ()> + Send + use<M> {
        let arrived = Arc::clone(&self.arrived);
        async move { arrived.notified().await }
    }

    /// `false` once nobody holds the engine.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.core.enter_all(std::iter::once(command)),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }
}

impl<M: StepModel> Drop for DrivenEngine<M> {
    fn drop(&mut self) {
        self.exchange.healthy.store(false, std::sync::atomic::Ordering::Release);
        self.core.land();
        self.core.fail_all(&SequenceError::ShuttingDown, &self.commands);
    }
}
