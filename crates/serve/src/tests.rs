//! Requests against the routes, over a fake store. Modules:
//!
//! - `answers`: every endpoint and parameter, alone and combined: the question asked and the bytes answered;
//! - `errors`: every problem once;
//! - `metrics`: both text formats, parsed strictly;
//! - `openapi`: the committed description, assembled from its parts and compared with all of this;
//! - `fake`: the store and the process behind the routes.

mod answers;
mod errors;
mod fake;
mod metrics;
mod openapi;
mod recovering;

use crate::desk::Desk;
use crate::limits::Limits;
use crate::routes::router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use fake::{FakeProcess, FakeStore};
use std::future::Future;
use std::sync::Arc;
use tower::ServiceExt;

/// A parsed response.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    /// Parses the bytes on a connection.
    fn of_wire(bytes: &[u8]) -> Reply {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let (status, fields) = head.split_once("\r\n").unwrap();
        let status = status.strip_prefix("HTTP/1.1 ").and_then(|status| status.get(..3)).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in fields.split("\r\n").map(|field| field.split_once(": ").unwrap()) {
            headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        assert_eq!(headers["content-length"], body.len().to_string());
        Reply { status: status.parse().unwrap(), headers, body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A desk with fakes behind it.
struct Bench {
    store: Arc<FakeStore>,
    process: Arc<FakeProcess>,
    desk: Arc<Desk>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(Limits::default())
    }

    fn with(limits: Limits) -> Bench {
        let (store, process) = (Arc::new(FakeStore::default()), Arc::new(FakeProcess::default()));
        let desk = Arc::new(Desk::new(store.clone(), process.clone(), limits));
        Bench { store, process, desk }
    }

    fn get(&self, uri: &str) -> Reply {
        self.send(Request::get(uri).body(Body::empty()).unwrap())
    }

    fn send(&self, request: Request<Body>) -> Reply {
        block_on(async {
            let response = router(self.desk.clone()).oneshot(request).await.unwrap();
            let (head, body) = response.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
            Reply { status: head.status, headers: head.headers, body: String::from_utf8(body).unwrap() }
        })
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}
