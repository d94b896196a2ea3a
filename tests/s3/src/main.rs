//! An S3 server for tests: `s3s-fs` over a folder, with faults on request.
//!
//! Usage: `adtally-test-s3 FOLDER [PORT]`. It listens on 127.0.0.1, prints its address, and ends when its standard input
//! is closed. A bucket is a folder in FOLDER. The access key is `adtally`, the secret key `adtally-secret`.
//!
//! `PUT /_faults` sets the faults, one `name=value` a line; what is not named is off. `GET /_faults` returns, in the same
//! form, how many requests each has hit:
//!
//! | name | value | what happens to a request |
//! |---|---|---|
//! | `refuse_500`, `refuse_503` | ppm | nothing is done; the answer is an error |
//! | `lose_500` | ppm | it is done; the answer is an error |
//! | `refuse_409`, `lose_409` | ppm | the same for PUT requests, with the answer of a conflict |
//! | `refuse_hang`, `lose_hang` | ppm | it is not done, or done; the answer comes after `hang_ms` |
//! | `hang_ms` | ms | how long an answer hangs |
//! | `slow_ms` | ms | each request takes so much longer |
//! | `seed` | number | the seed of the choice |
//!
//! `s3s-fs` checks `If-None-Match` before it writes, without a lock. Here, PUT requests are done one after another. And it fails
//! to read a folder as an object, with status 500. S3 has no folders: here, that is an object that does not exist.

mod faults;

use faults::{Chosen, Faults};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

/// The path of the faults.
const FAULTS: &str = "/_faults";

/// What the connections share.
struct Server {
    s3: S3Service,
    /// The folder with the buckets.
    folder: PathBuf,
    /// Held by the PUT request that is being done.
    putting: tokio::sync::Mutex<()>,
    faults: Mutex<Faults>,
}

type Answer = Response<s3s::Body>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let folder = PathBuf::from(words.next().ok_or("usage: adtally-test-s3 FOLDER [PORT]")?);
    let port: u16 = words.next().map_or(Ok(0), |port| port.parse())?;
    let files = s3s_fs::FileSystem::new(&folder).map_err(|error| format!("the folder cannot be used: {error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single("adtally", "adtally-secret"));
    let (putting, faults) = (tokio::sync::Mutex::default(), Mutex::default());
    let server = Arc::new(Server { s3: builder.build(), folder, putting, faults });
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}", listener.local_addr()?);
    tokio::spawn(accept(listener, server));
    // Whoever started this server holds the other end.
    let mut nothing = Vec::new();
    tokio::io::stdin().read_to_end(&mut nothing).await?;
    Ok(())
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&server), request));
            // A client may leave at any time.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(server: Arc<Server>, request: Request<Incoming>) -> Result<Answer, String> {
    if request.uri().path() == FAULTS {
        return Ok(set_or_tell(&server, request).await);
    }
    let is_put = request.method() == Method::PUT;
    let (chosen, hang, slow) = {
        let mut faults = server.faults.lock().unwrap_or_else(PoisonError::into_inner);
        (faults.choose(is_put), faults.hang(), faults.slow())
    };
    tokio::time::sleep(slow).await;
    let done = match chosen {
        Chosen::Refuse(_) => {
            // The request is read, as a real server would.
            let _ = request.into_body().collect().await;
            None
        }
        Chosen::Nothing | Chosen::Lose(_) if is_put => {
            let _one = server.putting.lock().await;
            Some(call(&server, request).await)
        }
        Chosen::Nothing | Chosen::Lose(_) => Some(call(&server, request).await),
    };
    match (chosen, done) {
        (Chosen::Nothing, Some(done)) => done,
        (Chosen::Refuse(None) | Chosen::Lose(None), _) => {
            tokio::time::sleep(hang).await;
            Ok(failed(StatusCode::GATEWAY_TIMEOUT))
        }
        (Chosen::Refuse(Some(status)) | Chosen::Lose(Some(status)), _) => Ok(failed(status)),
        (Chosen::Nothing, None) => Err("a request was not done".to_owned()),
    }
}

async fn call(server: &Server, request: Request<Incoming>) -> Result<Answer, String> {
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    if reads && names_folder(&server.folder, request.uri().path()) {
        return Ok(failed(StatusCode::NOT_FOUND));
    }
    server.s3.call(request.map(s3s::Body::from)).await.map_err(|error| format!("{error:?}"))
}

/// Whether the key in the path of a request is that of a folder in a bucket.
fn names_folder(root: &Path, path: &str) -> bool {
    let path = decoded(path.trim_matches('/'));
    path.contains('/') && root.join(path).is_dir()
}

/// A text with `%3D` and the like decoded.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.zip(part.get(2..)) {
            Some((byte, rest)) => {
                bytes.push(byte);
                bytes.extend(rest.as_bytes());
            }
            None => {
                bytes.push(b'%');
                bytes.extend(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An error as S3 answers it.
fn failed(status: StatusCode) -> Answer {
    let code = match status {
        StatusCode::CONFLICT => "ConditionalRequestConflict",
        StatusCode::NOT_FOUND => "NoSuchKey",
        StatusCode::SERVICE_UNAVAILABLE => "SlowDown",
        _ => "InternalError",
    };
    let text =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>made by the test server</Message></Error>");
    let mut answer = Response::new(s3s::Body::from(text));
    *answer.status_mut() = status;
    answer
}

async fn set_or_tell(server: &Server, request: Request<Incoming>) -> Answer {
    let is_put = request.method() == Method::PUT;
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut faults = server.faults.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = match is_put {
        true => faults.set(&String::from_utf8_lossy(&body)),
        false => Ok(()),
    };
    let (status, text) = match outcome {
        Ok(()) => (StatusCode::OK, faults.told()),
        Err(what) => (StatusCode::BAD_REQUEST, what),
    };
    let mut answer = Response::new(s3s::Body::http_body(Full::new(Bytes::from(text)).map_err(std::io::Error::other)));
    *answer.status_mut() = status;
    answer
}
