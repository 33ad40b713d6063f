//! `baton.v1.Decode` on a prefill worker: both phases here, for the time that no decode worker is.

use std::sync::Arc;

use async_trait::async_trait;
use proto::v1;
use tonic::{Request, Response, Status};
use worker::call::ResponseStream;
use worker::entrance::step_max;
use worker::{Ask, Call, Node};

/// Serves whole requests on a prefill worker. It has no receiver, so peers named in a call are not
/// asked.
pub(crate) struct LocalDecode {
    node: Node,
}

// === impl LocalDecode ===

impl LocalDecode {
    pub(crate) fn new(node: Node) -> Self {
        Self { node }
    }
}

#[async_trait]
impl v1::decode_server::Decode for LocalDecode {
    type GenerateStream = ResponseStream<v1::GenerateResponse>;

    async fn generate(
        &self,
        request: Request<v1::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let mut request = request.into_inner();
        let seal = self.node.integrity.open("generate", &mut request)?;
        let permit = self.node.admit(request.incarnation)?;
        let call = Call::new(
            permit,
            self.node.capped_ms(request.deadline_ms),
            request.start_within_ms,
            seal,
        )
        .waiting(request.waited_us);
        let work = Arc::new(self.node.integrity.generation(request.generation)?);
        let (node, deadline, asked_at) = (self.node.clone(), call.deadline, call.asked_at);
        let ask = Ask::to_generate(&node.engine, &work, true)
            .starting_by(call.start_by)
            .with_steps_of(step_max(request.step_max_us));
        Ok(call.spawn(self.node.life.tasks(), |responses| async move {
            // Where the end is all that is left to tell, nothing is to be waited for.
            let _inside = match node.engine.end_of(&work) {
                None => Some(node.entrance.enter(ask).await?),
                Some(_) => None,
            };
            worker::local::generate(&node.engine, work, deadline, asked_at, &responses).await
        }))
    }
}
