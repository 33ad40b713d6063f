//! The store, as etcd's services.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use cluster::Lifecycle;
use cluster::rpc::{Listener, Server};
use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbCompare, PbDeleteRequest, PbDeleteResponse,
    PbKvServer, PbKvService, PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest,
    PbLeaseKeepAliveResponse, PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest,
    PbLeaseRevokeResponse, PbLeaseServer, PbLeaseService, PbLeaseTimeToLiveRequest,
    PbLeaseTimeToLiveResponse, PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse,
    PbRangeStreamResponse, PbResponseHeader, PbResponseOp, PbTargetUnion, PbTxnOpRequest,
    PbTxnOpResponse, PbTxnRequest, PbTxnResponse, PbWatchRequest, PbWatchRequestUnion,
    PbWatchResponse, PbWatchServer, PbWatchService,
};
use futures::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{Duration, interval};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use super::store::Store;

/// How often etcd looks for leases that have ended.
const LEASE_LOOK: Duration = Duration::from_millis(500);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// etcd's services over one store.
#[derive(Clone)]
struct Etcd(Arc<Mutex<Store>>);

/// Serves a store for as long as it is polled.
pub async fn serve(listener: Listener, store: Store) {
    let etcd = Etcd(Arc::new(Mutex::new(store)));
    let routes = Routes::new(PbKvServer::new(etcd.clone()))
        .add_service(PbLeaseServer::new(etcd.clone()))
        .add_service(PbWatchServer::new(etcd.clone()));
    let life = Lifecycle::new();
    let serving = Server::new(listener, &life).serve(routes);
    tokio::pin!(serving);
    let mut looks = interval(LEASE_LOOK);
    loop {
        tokio::select! {
            _ = &mut serving => return,
            _ = looks.tick() => etcd.0.lock().expire(),
        }
    }
}

// === impl Etcd ===

impl Etcd {
    fn header(&self) -> Option<PbResponseHeader> {
        let revision = self.0.lock().revision();
        Some(PbResponseHeader { cluster_id: 1, member_id: 1, revision, raft_term: 1 })
    }

    fn holds(&self, compare: &PbCompare) -> bool {
        let kv = self.0.lock().get(&compare.key).unwrap_or_default();
        let (ours, theirs) = match compare.target_union.clone() {
            Some(PbTargetUnion::Lease(lease)) => (kv.lease, lease),
            Some(PbTargetUnion::ModRevision(revision)) => (kv.mod_revision, revision),
            Some(PbTargetUnion::CreateRevision(revision)) => (kv.create_revision, revision),
            Some(PbTargetUnion::Version(version)) => (kv.version, version),
            Some(PbTargetUnion::Value(value)) => return kv.value == value,
            None => return false,
        };
        ours == theirs
    }

    fn ranged(&self, request: &PbRangeRequest) -> PbRangeResponse {
        let kvs = self.0.lock().range(&request.key, &request.range_end);
        PbRangeResponse { header: self.header(), count: kvs.len() as i64, kvs, more: false }
    }

    fn written(&self, request: PbPutRequest) -> Result<PbPutResponse, Status> {
        let PbPutRequest { key, value, lease, .. } = request;
        if !self.0.lock().put(key, value, lease) {
            return Err(Status::new(Code::NotFound, "etcdserver: requested lease not found"));
        }
        Ok(PbPutResponse { header: self.header(), prev_kv: None })
    }

    fn deleted(&self, request: &PbDeleteRequest) -> PbDeleteResponse {
        let deleted = self.0.lock().delete(&request.key, &request.range_end);
        PbDeleteResponse { header: self.header(), deleted, prev_kvs: Vec::new() }
    }

    fn done(&self, operation: PbTxnOpRequest) -> Result<PbTxnOpResponse, Status> {
        Ok(match operation {
            PbTxnOpRequest::RequestRange(it) => PbTxnOpResponse::ResponseRange(self.ranged(&it)),
            PbTxnOpRequest::RequestPut(it) => PbTxnOpResponse::ResponsePut(self.written(it)?),
            PbTxnOpRequest::RequestDeleteRange(it) => {
                PbTxnOpResponse::ResponseDeleteRange(self.deleted(&it))
            }
            PbTxnOpRequest::RequestTxn(_) => return Err(unserved()),
        })
    }

    /// What happens in a range, from a revision on.
    fn changes(&self, request: &PbWatchRequest) -> Answers<PbWatchResponse> {
        let Some(PbWatchRequestUnion::CreateRequest(create)) = request.request_union.clone() else {
            return stream::empty().boxed();
        };
        let (etcd, revisions) = (self.clone(), self.0.lock().revisions());
        let from = if create.start_revision > 0 { create.start_revision } else { i64::MAX };
        let created =
            PbWatchResponse { header: self.header(), created: true, ..PbWatchResponse::default() };
        let events = stream::unfold((revisions, from), move |(mut revisions, from)| {
            let (etcd, create) = (etcd.clone(), create.clone());
            async move {
                loop {
                    let revision = *revisions.borrow_and_update();
                    let events = etcd.0.lock().events(&create.key, &create.range_end, from);
                    if !events.is_empty() {
                        let header = etcd.header();
                        let told = PbWatchResponse { header, events, ..PbWatchResponse::default() };
                        return Some((Ok(told), (revisions, revision + 1)));
                    }
                    revisions.changed().await.ok()?;
                }
            }
        });
        stream::once(async { Ok(created) }).chain(events).boxed()
    }
}

#[async_trait]
impl PbKvService for Etcd {
    type RangeStreamStream = Answers<PbRangeStreamResponse>;

    async fn range(
        &self,
        request: Request<PbRangeRequest>,
    ) -> Result<Response<PbRangeResponse>, Status> {
        Ok(Response::new(self.ranged(request.get_ref())))
    }

    async fn range_stream(
        &self,
        _: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(unserved())
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        self.written(request.into_inner()).map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<PbDeleteRequest>,
    ) -> Result<Response<PbDeleteResponse>, Status> {
        Ok(Response::new(self.deleted(request.get_ref())))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let PbTxnRequest { compare, success, failure } = request.into_inner();
        let succeeded = compare.iter().all(|compare| self.holds(compare));
        let operations = if succeeded { success } else { failure };
        let done = operations.into_iter().filter_map(|it| it.request).map(|it| self.done(it));
        let responses = done
            .map(|done| done.map(|response| PbResponseOp { response: Some(response) }))
            .collect::<Result<_, _>>()?;
        Ok(Response::new(PbTxnResponse { header: self.header(), succeeded, responses }))
    }

    async fn compact(
        &self,
        _: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        Err(unserved())
    }
}

#[async_trait]
impl PbLeaseService for Etcd {
    type LeaseKeepAliveStream = Answers<PbLeaseKeepAliveResponse>;

    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let ttl = request.get_ref().ttl.max(2);
        let id = self.0.lock().grant(ttl);
        let header = self.header();
        Ok(Response::new(PbLeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        self.0.lock().revoke(request.get_ref().id);
        Ok(Response::new(PbLeaseRevokeResponse { header: self.header() }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let etcd = self.clone();
        let renewed = request.into_inner().map(move |request| {
            let id = request?.id;
            let ttl = etcd.0.lock().renew(id);
            Ok(PbLeaseKeepAliveResponse { header: etcd.header(), id, ttl })
        });
        Ok(Response::new(renewed.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        Err(unserved())
    }

    async fn lease_leases(
        &self,
        _: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        Err(unserved())
    }
}

#[async_trait]
impl PbWatchService for Etcd {
    type WatchStream = Answers<PbWatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let etcd = self.clone();
        let watches = request.into_inner().flat_map_unordered(None, move |request| match request {
            Ok(request) => etcd.changes(&request),
            Err(status) => stream::once(async { Err(status) }).boxed(),
        });
        Ok(Response::new(watches.boxed()))
    }
}

/// The membership asks for none of the rest.
fn unserved() -> Status {
    Status::unimplemented("not part of the simulation")
}
