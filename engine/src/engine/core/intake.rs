//! When the engine's thread waits, and for what.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use super::Core;
use crate::clock;
use crate::engine::StepModel;
use crate::handle::Command;

/// How often a reader that has stalled, or memory that others hold, is looked at again while
/// nothing can run. Far below a step's time, and a thousand looks a second cost nothing.
const STALLED_WAIT: Duration = Duration::from_millis(1);

/// How often a step is looked at that may end before it was expected to.
const LOOK_EVERY: Duration = Duration::from_micros(300);

// === impl Core ===

impl<M: StepModel> Core<M> {
    /// Takes in what has arrived; waits only where there is nothing to do. `false` means stop.
    pub(super) fn take_commands(&mut self, commands: &Receiver<Command>, moved: bool) -> bool {
        let is_stopping = self.exchange.stop_at().is_some();
        self.exchange.outbox.flush();
        self.await_planning(commands);
        let first = if !moved {
            none_if(commands.recv_timeout(STALLED_WAIT), &RecvTimeoutError::Timeout)
        } else if self.is_idle() && !is_stopping {
            commands.recv().map(Some).ok()
        } else {
            none_if(commands.try_recv(), &TryRecvError::Empty)
        };
        let Some(first) = first else { return false };
        self.enter_all(first.into_iter().chain(commands.try_iter()));
        !self.must_stop()
    }

    /// Takes in what arrives while a step runs, up to the moment when the next has to be planned:
    /// planned at once, it would leave out whatever comes meanwhile.
    fn await_planning(&mut self, commands: &Receiver<Command>) {
        let Some(mut plan_at) = self.plan_at() else { return };
        while let Some(wait) = plan_at.checked_duration_since(clock::now()) {
            match commands.recv_timeout(wait.min(LOOK_EVERY)) {
                Ok(command) => {
                    self.enter_all(std::iter::once(command));
                    plan_at = self.plan_at().unwrap_or(plan_at);
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.flight.as_ref().is_none_or(|flight| flight.is_done(&self.model)) {
                return;
            }
        }
    }
}

/// `Some(None)` where nothing has come yet, `None` where nothing ever will.
fn none_if<E: PartialEq>(received: Result<Command, E>, nothing_yet: &E) -> Option<Option<Command>> {
    match received {
        Ok(command) => Some(Some(command)),
        Err(error) if error == *nothing_yet => Some(None),
        Err(_) => None,
    }
}
