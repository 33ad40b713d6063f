//! The way of every request through the router, whichever API it came by: its body is received, read and started, and the
//! reply is written, whole or as it comes.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value as Json};
use words::RequestId;

use super::ignored::Ignored;
use super::relay::{Reply, collect};
use super::sse;
use crate::callers::caller::Endpoint;
use crate::gateway::{Task, TextRequest, TextStream};
use crate::http::body;
use crate::http::error::HttpError;
use crate::http::headers::{self, CallIds};
use crate::{Gateway, RequestError};

/// An API: how its requests are read, and who writes its replies.
pub(crate) trait Api: 'static {
    /// Where it is served, by POST.
    const PATH: &'static str;
    /// What it does, in a few words.
    const ABOUT: &'static str;
    /// Its name in metrics.
    const NAME: Endpoint;

    /// Writes its replies.
    type Reply: Reply;

    /// Reads a request.
    ///
    /// # Errors
    /// [`RequestError`] naming the first field that is wrong.
    fn read(
        object: Map<String, Json>,
        reading: &mut Reading<'_>,
    ) -> Result<Ask<Self::Reply>, RequestError>;
}

/// What a request is read with.
pub(crate) struct Reading<'a> {
    pub(crate) gateway: &'a Gateway,
    /// The request's name.
    pub(crate) id: &'a RequestId,
    /// Fields that have no effect are noted here.
    pub(crate) ignored: Ignored,
}

/// A request that has been read, and how to answer it.
pub(crate) struct Ask<R> {
    pub(crate) task: Task,
    pub(crate) reply: R,
    /// As it comes, not whole.
    pub(crate) stream: bool,
}

/// Answers one request.
pub(super) async fn answer<A: Api>(
    State(gateway): State<Arc<Gateway>>,
    Extension(ids): Extension<CallIds>,
    request: Request,
) -> Response {
    match try_answer::<A>(&gateway, ids, request).await {
        Ok(response) => response,
        Err(error) => {
            gateway.refused(A::NAME, error.code);
            error.into_response()
        }
    }
}

async fn try_answer<A: Api>(
    gateway: &Arc<Gateway>,
    ids: CallIds,
    request: Request,
) -> Result<Response, HttpError> {
    let headers = request.headers().clone();
    let (object, received) = body::read_object(request, gateway, ids.client).await?;
    let ignored = Ignored::new(gateway.config.strict_fields);
    let mut reading = Reading { gateway, id: &ids.request, ignored };
    let Ask { task, reply, stream: as_stream } = A::read(object, &mut reading)?;
    headers::unread(&headers).try_for_each(|name| reading.ignored.note("", name))?;
    let ignored = reading.ignored.header();
    let limits = gateway.limits();
    let caller = ids.caller(A::NAME, &headers, limits.request_timeout)?;
    let stream = gateway.start(TextRequest { caller, task }, received).await?;
    let mut response = if as_stream {
        sse::respond(reply, stream, limits.keep_alive)
    } else {
        whole(reply, stream).await.unwrap_or_else(|error| HttpError::from(error).into_response())
    };
    if let Some(names) = ignored {
        response.headers_mut().insert(headers::IGNORED_FIELDS, names);
    }
    Ok(response)
}

/// Waits for every choice to end and answers with them all. An error that ends them has been counted by then.
async fn whole<R: Reply>(reply: R, mut stream: TextStream) -> Result<Response, RequestError> {
    let choices = collect(&mut stream).await?;
    let mut response = Response::new(Body::from(reply.whole(choices, &stream)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers::add_route(headers, &stream);
    Ok(response)
}
