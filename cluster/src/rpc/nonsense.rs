//! Calls whose message can't be read: the caller's fault, which the library under the services calls its own.

use axum::Router;
use axum::middleware;
use axum::response::Response;
use http::HeaderMap;
use tonic::service::Routes;
use tonic::{Code, Status};

use crate::ErrorCode;

/// Names the caller's faults as such in the answers of `routes`.
pub(super) fn blame_callers(routes: Routes) -> Routes {
    let router: Router = routes.prepare().into_axum_router();
    router.layer(middleware::map_response(blame_caller)).into()
}

/// What the library answers before a service has heard of a call is about the call: no message where there must be
/// one, a broken frame, bytes that are no protobuf. All of it comes as `INTERNAL`; that of our services has their mark.
async fn blame_caller(mut answer: Response) -> Response {
    if is_librarys_own(answer.headers()) {
        let code = Code::InvalidArgument as i32;
        answer.headers_mut().insert(Status::GRPC_STATUS, code.into());
    }
    answer
}

fn is_librarys_own(headers: &HeaderMap) -> bool {
    let code = headers.get(Status::GRPC_STATUS).map(http::HeaderValue::as_bytes);
    code.is_some_and(|code| Code::from_bytes(code) == Code::Internal)
        && !ErrorCode::is_marked(headers)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::no_protobuf(
        Status::internal("failed to decode Protobuf message"),
        Code::InvalidArgument
    )]
    #[case::our_own_fault(ErrorCode::Internal.status("broken"), Code::Internal)]
    #[case::no_such_service(Status::unimplemented("what?"), Code::Unimplemented)]
    #[case::full(Status::resource_exhausted("full"), Code::ResourceExhausted)]
    #[tokio::test]
    async fn what_a_service_has_not_said_is_about_the_call(
        #[case] said: Status,
        #[case] heard: Code,
    ) {
        let answer = blame_caller(said.clone().into_http()).await;
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!((status.code(), status.message()), (heard, said.message()));
    }
}
